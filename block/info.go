package block

import "strings"

// Info is what a Device can do, resolved once when it is opened. The data path
// switches on this value and never asserts types per request.
type Info struct {
	// Size is the number of bytes, a multiple of Block.Min.
	Size int64

	// Block gives the sizes of requests.
	Block BlockSize

	// MemAlign is the alignment, in bytes, at which a buffer's address saves
	// the Device a copy (O_DIRECT); 0 or 1 when it does not care. Buffers of
	// package buffer satisfy every MemAlign up to the page size.
	MemAlign int

	// Caps is the set of what works.
	Caps Cap

	// ReadOnly: every changing call fails with ReadOnly.
	ReadOnly bool

	// Rotational: seeks are expensive.
	Rotational bool
}

// Has reports whether all capabilities in c are there.
func (i Info) Has(c Cap) bool { return i.Caps&c == c }

// BlockSize holds the request sizes of a Device, in bytes.
type BlockSize struct {
	Min       int64 // offsets and lengths must be multiples: a power of two, 1 … 65536
	Preferred int64 // requests in multiples of this are the cheapest: a power of two, >= 512 and >= Min
	Max       int64 // the longest single read or write, a multiple of Min; 0 means no limit
}

// Cap is a set of capabilities.
type Cap uint32

// The capabilities. Each names the interface that stands behind it, where
// there is one.
const (
	CapFlush     Cap = 1 << iota // there is a volatile cache: Flush matters
	CapFUA                       // FUA is cheaper than a write and a flush
	CapZero                      // Zeroer
	CapFastZero                  // Zeroer, and FastOnly never fails
	CapDiscard                   // Discarder
	CapExtents                   // Extenter
	CapDepth                     // Extent.Depth is told (else it is 0 or 1)
	CapPrefetch                  // Prefetcher
	CapResize                    // Resizer
	CapNowait                    // Nowaiter
	CapFileRange                 // Ranger
	CapBitmaps                   // Bitmapper

	// CapMultiConn: what holds for the callers of one Device holds for callers
	// that reach it over several connections: a completed write is visible to
	// all, and a Flush by one covers the writes of all. It says nothing of two
	// Devices opened on one image.
	CapMultiConn

	// CapSerialWrites: writes to the Device exclude each other anyway (as
	// buffered writes to one file do), so that sending them from several
	// threads only makes the threads contend.
	CapSerialWrites

	// CapNowaitWrites: WriteAt never waits for a medium or a network (RAM), so
	// an exporter may call it from its own loop.
	CapNowaitWrites

	CapStart // Starter
	CapCopy  // Copier
)

var capNames = [...]string{
	"flush", "fua", "zero", "fast-zero", "discard", "extents", "depth", "prefetch", "resize",
	"nowait", "file-range", "bitmaps", "multi-conn", "serial-writes", "nowait-writes", "start", "copy",
}

// Names lists the capabilities in c by name, in a fixed order.
func (c Cap) Names() []string {
	var names []string
	for i, name := range capNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String gives the names with commas between them.
func (c Cap) String() string { return strings.Join(c.Names(), ",") }

package block

import "context"

// Device is random access to a fixed number of bytes: what every exporter
// serves and what every backend, format and filter provides.
//
// All methods may be called by many goroutines at once. A read or write moves
// all of p or returns an error; there are no short transfers. Offsets and
// lengths are bytes; they must lie inside [0, Info().Size) and be multiples of
// Info().Block.Min, otherwise the call fails with OutOfRange or Invalid and
// moves nothing. An empty p is valid everywhere and does nothing but that
// check.
//
// # Durability
//
// A write that returned nil is visible to every later read through this
// Device. It is durable (it survives the loss of the process and of power)
//
//   - when a Flush that was *issued* after the write *completed* returns nil,
//     from whatever goroutine either came; or
//   - when the write itself carried FUA and returned nil.
//
// A write that returned an error, or that never returned, may have reached the
// medium whole, in part or not at all. Two overlapping requests in flight at
// the same time have no order.
//
// # Ownership
//
// p belongs to the Device from the call until it returns and never after that.
// A Device must not change p in WriteAt.
//
// # Cancelling
//
// A cancelled ctx is a hint: a Device may return early with the context's
// error only when it no longer touches p and, for a write, when the bytes will
// not reach the medium after the call returned.
type Device interface {
	// Info returns the capabilities and the size. The value is resolved when
	// the Device is opened and does not change, except Size through Resize.
	Info() Info

	// ReadAt fills p with the bytes at off.
	ReadAt(ctx context.Context, p []byte, off int64) error

	// WriteAt stores p at off. The only flag it knows is FUA, and only when
	// Info().Caps has CapFUA; others are Invalid.
	WriteAt(ctx context.Context, p []byte, off int64, flags Flags) error

	// Flush makes durable every write that completed before the call.
	Flush(ctx context.Context) error

	// Close waits for the calls in progress and frees the Device. It does not
	// flush. Calls after it fail with Closed; a second Close returns nil.
	Close() error
}

// Flags modify a write, a zeroing or a discard.
type Flags uint8

const (
	// FUA (force unit access): the request's own effect is durable when the
	// call returns nil. Known by WriteAt, WriteZeroes and Discard.
	FUA Flags = 1 << iota

	// MayUnmap lets WriteZeroes free the space below the range, so that a
	// later write may fail with NoSpace. Without it the range stays (or
	// becomes) allocated.
	MayUnmap

	// FastOnly makes WriteZeroes fail with Unsupported, at once and with
	// nothing changed, where it would have to write the zeroes out like data.
	FastOnly
)

// The optional powers of a Device follow. A Device that implements one says so
// in Info().Caps; a capability without the method, or the method called while
// the capability is not there, is a bug (see Resolve). A Device around a Device
// offers only the powers that it forwards by name: one that it does not know
// must vanish.

// Zeroer makes ranges read as zeroes without their bytes being sent (CapZero;
// CapFastZero where FastOnly never fails).
type Zeroer interface {
	// WriteZeroes makes n bytes at off read as zeroes.
	WriteZeroes(ctx context.Context, off, n int64, flags Flags) error
}

// Discarder gives up ranges (CapDiscard).
type Discarder interface {
	// Discard says that the n bytes at off are no longer needed. What they
	// read as afterwards is undefined: the Device may ignore the call, or
	// honour it for a part of the range.
	Discard(ctx context.Context, off, n int64, flags Flags) error
}

// Extenter knows which ranges hold data (CapExtents).
type Extenter interface {
	// Extents appends the extents that start at off to dst, until n bytes are
	// covered or dst is full (len == cap), and returns it: at least one and,
	// when n is not zero, no extent of length zero. The extents lie one after
	// the other without gaps and never pass off+n; their lengths are multiples
	// of Info().Block.Min, so that one can ask on where they end: a block in
	// which states meet has what is true of all of it. dst must have room for
	// one at least.
	Extents(ctx context.Context, off, n int64, dst []Extent) ([]Extent, error)
}

// Prefetcher brings ranges into a cache ahead of their use (CapPrefetch).
type Prefetcher interface {
	// Prefetch returns when the range was asked for, not when it has come.
	Prefetch(ctx context.Context, off, n int64) error
}

// Resizer changes the size (CapResize).
type Resizer interface {
	// Resize sets Info().Size. New bytes read as zeroes. The caller sees to it
	// that nothing is in flight beyond the new end.
	Resize(ctx context.Context, size int64) error
}

// Nowaiter answers reads that need no waiting (CapNowait), so that an exporter
// can run them in its own loop and give only the others to a worker.
type Nowaiter interface {
	// ReadNowait is ReadAt, but returns ErrWouldBlock (p's content is then
	// undefined) where the bytes are not at hand in memory.
	ReadNowait(p []byte, off int64) error
}

// Starter carries out requests that nobody waits for in a goroutine of their own
// (CapStart): one who has many at once, such as an exporter, starts them all and is told
// of each one's end. What cannot be begun at once is not begun.
type Starter interface {
	// StartRead begins to fill p with the bytes at off and returns true; p is the
	// Device's until done was told. It may be held back until Kick. false: it was
	// not begun and done will not be told; ReadAt can do it, or tell why not.
	StartRead(p []byte, off int64, done Done) bool
	// StartWrite is the same for a write; see WriteAt for the flags.
	StartWrite(p []byte, off int64, flags Flags, done Done) bool
	// Kick sends off what was started.
	Kick()
}

// Done is told how a request ended that was started.
type Done interface {
	// Done is called once, by any goroutine, perhaps before the request's start has
	// returned. It must not wait. An error means no more than that it did not work
	// out this way: whether the request was carried out is open, and the caller has
	// it done by ReadAt or WriteAt, whose outcome counts. What it returns, if not
	// nil, is pushed when what ended together was told.
	Done(err error) Pusher
}

// Pusher collects outcomes until it is pushed. It is compared with others.
type Pusher interface {
	// Push must not wait.
	Push()
}

// Ranger tells where bytes lie in a local file (CapFileRange), so that an
// exporter can let the kernel move them.
type Ranger interface {
	// PinRange reports the longest prefix, possibly all, of the n bytes at off
	// that lies contiguous in one local file. With ok, the bytes stay there,
	// and stay readable through the descriptor, until UnpinRange, which must
	// follow exactly once and before Close. Without ok the caller reads and
	// writes in the ordinary way.
	PinRange(off, n int64) (r FileRange, ok bool)

	// UnpinRange gives back what PinRange returned, unchanged: a layer that
	// shifts or shortens a range keeps Token, by which the one below knows it.
	UnpinRange(r FileRange)
}

// Bitmapper keeps bitmaps of changed blocks under names (CapBitmaps).
type Bitmapper interface {
	// Bitmaps lists the names that can be asked for.
	Bitmaps() []string

	// BitmapExtents is Extents for one bitmap: Dirty is the only state bit.
	BitmapExtents(ctx context.Context, name string, off, n int64, dst []Extent) ([]Extent, error)
}

// Copier has the storage copy from another Device, without the bytes passing through
// this process (CapCopy). Both methods fail with Unsupported, and have then changed
// nothing, where that cannot be done between the two: the caller then reads and writes.
// from must be the very Device that its storage opened; one that is wrapped is a
// stranger. The ranges lie inside both Devices, and do not overlap in one of them. What
// was copied is durable with the next Flush.
type Copier interface {
	// CloneRange makes the n bytes at off those at fromOff of from, at once: the two
	// share their space until one of them is written.
	CloneRange(ctx context.Context, from Device, fromOff, off, n int64) error

	// CopyRange copies at least one of the n bytes, and gives how many, from the first
	// on.
	CopyRange(ctx context.Context, from Device, fromOff, off, n int64) (done int64, err error)
}

// FileRange is a run of a Device's bytes in a local file.
type FileRange struct {
	FD  int   // open for reading, and for writing unless the Device is read-only
	Off int64 // where the run starts in the file
	Len int64 // how many of the asked bytes the run holds, > 0

	// Resident: all of it is in memory as far as the Device can tell, so that
	// moving it does not wait for the medium.
	Resident bool

	Token uint64 // the Device's own mark for UnpinRange
}

// Extent is a run of bytes of one state. Where it starts follows from those
// before it.
type Extent struct {
	Len   int64
	State ExtentState
	Depth uint32 // how deep in a backing chain the bytes lie: 0 nowhere, 1 this image, 2 its backing …
}

// ExtentState describes an Extent; no bit set is plain data.
type ExtentState uint8

const (
	// Hole: no space is allocated, so a write here can fail with NoSpace.
	Hole ExtentState = 1 << iota
	// Zero: the bytes read as zeroes.
	Zero
	// Dirty: changed since the bitmap began (BitmapExtents only).
	Dirty
)

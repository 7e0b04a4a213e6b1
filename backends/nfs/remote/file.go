package remote

import (
	"context"

	"sluice/block"
)

// File is an open regular file. All methods may be called by many goroutines at once;
// calls wait while the server is away, as long as the client's patience goes.
//
// A cancelled context may end a call early only when the buffer is not touched any
// more, and a change only when it was not sent.
type File interface {
	// Read reads at most len(p) bytes, Limits.Read at most. Fewer come where the
	// server likes it; none, without an error, only at the end of the file.
	Read(ctx context.Context, p []byte, off int64) (n int, err error)
	// Write writes at most Limits.Write bytes of p, possibly fewer. With stable they
	// are durable when it returns.
	Write(ctx context.Context, p []byte, off int64, stable bool) (Written, error)
	// Commit makes durable what was written.
	Commit(ctx context.Context) (Verifier, error)
	// Attr gives the present attributes.
	Attr(ctx context.Context) (Attr, error)
	// Truncate sets the size; new bytes read as zeroes.
	Truncate(ctx context.Context, size int64) error
	// Close waits for the calls under way, and closes the file at the server if that
	// can be reached now.
	Close() error
}

// Starter is a File that reads and writes without a goroutine that waits: see
// block.Starter, whose rules hold for it. Only what can be sent at once is begun.
type Starter interface {
	// StartRead begins what Read does.
	StartRead(p []byte, off int64, done ReadDone) bool
	// StartWrite begins what Write does.
	StartWrite(p []byte, off int64, stable bool, done WriteDone) bool
	// Kick sends off what was begun.
	Kick()
}

// ReadDone is told of the end of a read: see block.Done.
type ReadDone interface {
	// ReadDone is told what Read would return.
	ReadDone(n int, err error) block.Pusher
}

// WriteDone is told of the end of a write.
type WriteDone interface {
	// WriteDone is told what Write would return.
	WriteDone(w Written, err error) block.Pusher
}

// Limiter is a File that knows its limits; each one is.
type Limiter interface {
	// Limits gives what was found out when the file was opened.
	Limits() Limits
}

// Limits says what a File can do.
type Limits struct {
	Read, Write int  // longest single call, in bytes
	Seek        bool // it is a Seeker
	Allocate    bool // it is an Allocator
	Copy        bool // it is a Copier
}

// Seeker knows holes (RFC 7862, section 15.11).
type Seeker interface {
	// Seek gives the first offset from off on where data (or, with hole, a hole)
	// begins. end: there is none up to the end of the file, where an implicit hole
	// begins.
	Seek(ctx context.Context, off int64, hole bool) (at int64, end bool, err error)
}

// Allocator reserves and frees space (RFC 7862, sections 15.1 and 15.4). The effect is
// durable with the next Commit.
type Allocator interface {
	// Allocate reserves space and keeps what is there.
	Allocate(ctx context.Context, off, n int64) error
	// Deallocate makes a range a hole: it reads as zeroes.
	Deallocate(ctx context.Context, off, n int64) error
}

// Copier copies within the server. Both files are of one Client.
type Copier interface {
	// Clone shares the blocks of a range (RFC 7862, section 15.13). It fails with
	// Unsupported where the server or its file system cannot.
	Clone(ctx context.Context, from File, fromOff, off, n int64) error
	// Copy has the server copy (section 15.2) and gives how many bytes it did.
	Copy(ctx context.Context, from File, fromOff, off, n int64) (done int64, w Written, err error)
}

// Verifier tells instances of a server apart (RFC 1813 section 3.3.7, RFC 8881 section
// 18.32): as long as it does not change, nothing that was written is lost.
type Verifier uint64

// Written is the outcome of a write.
type Written struct {
	N        int
	Durable  bool // else it needs a Commit that gives the same Verifier
	Verifier Verifier
}

package remote

import (
	"context"
	"time"
)

// Client is a client of one server, for one user. All methods may be called by many
// goroutines at once.
type Client interface {
	// Open opens a regular file that is there.
	Open(ctx context.Context, path string, opts OpenOptions) (File, error)
	// Tree gives the names.
	Tree() Tree
	// Status says how the server does.
	Status() Status
	// Close ends all calls with kind Closed, gives the server's state back if the
	// server is there, and waits. Files are closed before.
	Close() error
}

// Tree is the name space. Symbolic links are followed on the way, and at its end only
// by Stat with follow. All changes are durable when the call returns.
type Tree interface {
	// Stat describes what has the name.
	Stat(ctx context.Context, path string, follow bool) (Attr, error)
	// List gives what a folder holds, in the server's order, without "." and "..".
	List(ctx context.Context, path string) ([]Entry, error)
	// Create makes an empty regular file; it fails with Exists where the name is
	// taken, also when the answer to the first call was lost, unless it was that
	// call which took it.
	Create(ctx context.Context, path string, set SetAttr) error
	// Remove removes a name that is not a folder's.
	Remove(ctx context.Context, path string) error
	// Rename replaces what has the new name.
	Rename(ctx context.Context, from, to string) error
	// Link gives a second name; it fails with Exists where that is taken.
	Link(ctx context.Context, from, to string) error
}

// TreeSetter is a Tree that also tells of space and sets attributes.
type TreeSetter interface {
	// Set changes attributes of what has the name.
	Set(ctx context.Context, path string, set SetAttr) error
	// Space gives the bytes of the file system that holds path, and those free to
	// this user.
	Space(ctx context.Context, path string) (total, free int64, err error)
}

// OpenOptions shape an open File.
type OpenOptions struct {
	Write bool
	// Share lets others write at the same time. Without it a File that is open for
	// writing keeps other writers away where the protocol can do so (v4).
	Share bool
	// Kept is asked to write again what the server may have lost. nil where nothing
	// is kept.
	Kept Kept
}

// Kept is what was written to a File and not committed. The Client calls it, when the
// server may be another instance than the one that took the writes, before any call
// that waits is sent. Calls under way are parked then: they are sent (again) after
// it.
type Kept interface {
	// Verify finds out with a COMMIT whether the server still has all of it, and
	// does what Restore does where it has not.
	Verify(ctx context.Context, raw RawWriter) error
	// Restore writes all of it again and commits it.
	Restore(ctx context.Context, raw RawWriter) error
}

// RawWriter reaches a file at a time when calls in general wait.
type RawWriter interface {
	// Write is an UNSTABLE write; it may be short.
	Write(ctx context.Context, p []byte, off int64) (Written, error)
	// Zero makes a range read as zeroes, to be committed.
	Zero(ctx context.Context, off, n int64) (Verifier, error)
	// Commit makes all that is written durable.
	Commit(ctx context.Context) (Verifier, error)
}

// Status is how a server does.
type Status struct {
	Version   string // "4.2", "4.1", "3"
	Connected int    // connections that are up
	Wanted    int    // of so many
	Losses    uint64 // connections lost so far
	// Recoveries counts how often the server turned out to be a new instance or to
	// have dropped our session.
	Recoveries uint64
	// Away is since when no connection has been up; zero where one is.
	Away time.Time
	// Cause is why.
	Cause error
}

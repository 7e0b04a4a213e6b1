package observe

import (
	"time"

	"sluice/block"
)

// Op is a kind of operation, as an Observer is told of it.
type Op uint8

// The kinds of operation. They are those of package nbd, in the same order.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
	OpTrim
	OpZero
	OpCache
	OpStatus
	NumOps int = iota

	opResize Op = iota - 1 // watched only
)

var opNames = [...]string{"read", "write", "flush", "trim", "zero", "cache", "status", "resize"}

// String gives the name used in metrics and messages.
func (o Op) String() string { return opNames[o] }

// Observer is told what passes a Device. Its methods are called on the data path,
// from many goroutines at once: they must be cheap and must not block.
type Observer interface {
	// Request: an operation has ended. bytes is the length it covered (0 for a
	// flush), took how long the Device below had it, kind is block.OK or how it
	// failed.
	Request(op Op, bytes int64, took time.Duration, kind block.Kind)
	// InFlight: the number of operations below changed. Reads that must not wait
	// are not told of.
	InFlight(op Op, delta int)
	// Pinned: bytes were handed out as a range of a local file, to be moved by the
	// kernel. That is no request, and nobody can tell whether it is done, or how
	// long it takes.
	Pinned(bytes int64)
}

// nobody is the Observer of a Device that has none.
type nobody struct{}

func (nobody) Request(Op, int64, time.Duration, block.Kind) {}
func (nobody) InFlight(Op, int)                             {}
func (nobody) Pinned(int64)                                 {}

package fusefs

import (
	"time"

	"sluice/block"
)

// Op is a kind of request, as metrics count them.
type Op uint8

// The kinds of request.
const (
	OpRead   Op  = iota
	OpWrite      // also what copy_file_range writes
	OpFlush      // fsync, fdatasync, and close of a file that was written
	OpTrim       // fallocate that punches a hole
	OpZero       // fallocate that zeroes a range
	OpStatus     // lseek for data or a hole
	NumOps   int = iota
)

var opNames = [...]string{"read", "write", "flush", "trim", "zero", "status"}

// String gives the name used in metrics and messages.
func (o Op) String() string { return opNames[o] }

// Observer is told what happens to one file. Its methods are called on the data
// path, from many goroutines at once: they must be cheap and must not block.
type Observer interface {
	// Request: a request has been carried out. bytes is the length it covered (0
	// for a flush), took the time from its arrival until its answer was ready,
	// kind is block.OK or how it failed.
	Request(op Op, bytes int64, took time.Duration, kind block.Kind)
	// InFlight: the number of requests of a kind that are being worked on changed.
	// Those that are carried out as they are received are not told of.
	InFlight(op Op, delta int)
	// Open: a client opened the file (+1) or closed it (-1).
	Open(delta int)
}

// nobody is the Observer of a file that has none.
type nobody struct{}

func (nobody) Request(Op, int64, time.Duration, block.Kind) {}
func (nobody) InFlight(Op, int)                             {}
func (nobody) Open(int)                                     {}

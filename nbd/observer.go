package nbd

import (
	"time"

	"sluice/block"
)

// Op is a kind of request, as metrics count them.
type Op uint8

// The kinds of request.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
	OpTrim
	OpZero
	OpCache
	OpStatus
	NumOps int = iota
)

var opNames = [...]string{"read", "write", "flush", "trim", "zero", "cache", "status"}

// String gives the name used in metrics and messages.
func (o Op) String() string { return opNames[o] }

// Observer is told what happens to one export. Its methods are called on the
// data path, from many goroutines at once: they must be cheap and must not
// block.
type Observer interface {
	// Request: a request has been answered. bytes is the length it covered (0
	// for a flush), took the time from its arrival until its answer was ready,
	// kind is block.OK or how it failed.
	Request(op Op, bytes int64, took time.Duration, kind block.Kind)
	// InFlight: the number of requests of a kind that are being worked on changed.
	// Those that are carried out as they are received are not told of.
	InFlight(op Op, delta int)
	// Connection: a client arrived (+1) or left (-1).
	Connection(delta int)
}

// Sharder is an Observer that hands each connection an Observer of its own, so
// that connections do not write to the same counters.
type Sharder interface {
	// Shard gives a connection its Observer; all calls of the connection go to it.
	Shard() Observer
}

// nobody is the Observer of an export that has none.
type nobody struct{}

func (nobody) Request(Op, int64, time.Duration, block.Kind) {}
func (nobody) InFlight(Op, int)                             {}
func (nobody) Connection(int)                               {}

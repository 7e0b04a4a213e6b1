package fault

import (
	"math"
	"time"

	"sluice/block"
)

// Op names the calls that a rule is for.
type Op string

// The calls.
const (
	Read     Op = "read"
	Write    Op = "write"
	Flush    Op = "flush"
	Zero     Op = "zero" // WriteZeroes
	Discard  Op = "discard"
	Extents  Op = "extents" // bitmaps' too
	Prefetch Op = "prefetch"
	Resize   Op = "resize"
	Any      Op = "any" // all of these
)

var ops = []Op{Read, Write, Flush, Zero, Discard, Extents, Prefetch, Resize, Any}

// sector is what a torn write is a multiple of, in bytes.
const sector = 512

// Rule says what happens to which calls. What happens is Error, Delay, Torn, Drop
// or Hang, of which Delay can be combined with another and Error with Torn. The
// rest narrows down when; its zero values do not. [Parse] makes valid rules only.
type Rule struct {
	Op Op

	Error block.Kind    // the call fails so; with Torn: after the prefix was written
	Delay time.Duration // the call takes so much longer

	// Torn: a write stores a prefix of its bytes and fails, as Error says or with
	// block.IO. The prefix is shorter than the write and a multiple of 512 and of
	// Info().Block.Min.
	Torn   bool
	TornAt int64 // its length, a multiple of 512; 0: a random one, possibly empty

	Drop bool // a write, flush, zeroing or discard does nothing and succeeds
	Hang bool // the call waits until the rule is gone or the caller gives up

	// From and To: only calls that touch a byte of [From, To). To 0 is the end of
	// the Device. Flushes and resizes touch none.
	From, To int64

	Probability float64       // of each fitting call; 0: always
	After       int64         // so many fitting calls pass first, of those that no rule before it took
	Count       int64         // it fires at most so often; 0: no bound
	For         time.Duration // from when it was set; 0: no bound
	Seed        uint64        // of its random choices
}

// ranged reports whether the rule is for a part of the Device.
func (r *Rule) ranged() bool { return r.From != 0 || r.To != 0 }

// touches reports whether a call is where the rule is. One without a range is
// nowhere.
func (r *Rule) touches(c call) bool {
	if !r.ranged() {
		return true
	}
	to := r.To
	if to == 0 {
		to = math.MaxInt64
	}
	return c.off < to && r.From < c.off+c.n
}

// flaw says what is wrong with a rule, or nothing.
func (r *Rule) flaw() string {
	switch {
	case r.Error == block.OK && r.Delay == 0 && !r.Torn && !r.Drop && !r.Hang:
		return "it says nothing to do: error=KIND, delay=TIME, torn, drop or hang"
	case r.Drop && (r.Torn || r.Error != block.OK):
		return "what is dropped succeeds: drop goes with neither error nor torn"
	case r.Hang && (r.Drop || r.Torn || r.Error != block.OK || r.Delay != 0):
		return "hang goes with nothing else"
	case r.Torn && r.Op != Write:
		return "only a write can be torn"
	case r.Drop && r.Op != Write && r.Op != Flush && r.Op != Zero && r.Op != Discard:
		return "only write, flush, zero and discard can be dropped"
	case r.ranged() && (r.Op == Flush || r.Op == Resize):
		return "a " + string(r.Op) + " has no range"
	}
	return ""
}

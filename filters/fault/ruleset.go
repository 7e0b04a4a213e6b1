package fault

import (
	"math/rand/v2"
	"sync"
	"time"

	"sluice/block"
)

// call is a call of the Device, as rules see it.
type call struct {
	op     Op
	name   string // in errors
	off, n int64  // -1 and 0 where the call has no range
	flags  block.Flags
}

func (c call) ranged() bool { return c.op != Flush && c.op != Resize }

// ruleset is what SetRules has set.
type ruleset struct {
	gone  chan struct{} // closed when another takes its place
	since time.Time
	reads bool // some rule is for reads

	mu    sync.Mutex
	rules []armed
}

// armed is a rule with what it has seen. The set's mutex guards it.
type armed struct {
	Rule
	text  string
	seen  int64 // calls that fitted
	fired int64
	rng   *rand.Rand
}

func newRuleset(rules []Rule) *ruleset {
	s := &ruleset{gone: make(chan struct{}), since: time.Now()}
	for i, r := range rules {
		s.reads = s.reads || r.Op == Read || r.Op == Any
		// Each its own sequence, also where they share a seed.
		rng := rand.New(rand.NewPCG(r.Seed, uint64(i)))
		s.rules = append(s.rules, armed{Rule: r, text: r.String(), rng: rng})
	}
	return s
}

// verdict is what a rule does to a call.
type verdict struct {
	rule  *Rule // nil: nothing
	text  string
	torn  int64         // length of the prefix
	until time.Duration // until the rule is over by itself; 0: never
}

// judge gives the verdict of the first rule that fires.
func (s *ruleset) judge(c call, unit int64) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.rules {
		r := &s.rules[i]
		var left time.Duration
		if r.For > 0 {
			left = r.For - time.Since(s.since)
		}
		if r.For > 0 && left <= 0 || !r.fires(c) {
			continue
		}
		r.fired++
		v := verdict{rule: &r.Rule, text: r.text, until: left}
		if r.Torn {
			v.torn = r.prefix(c.n, max(unit, sector))
		}
		return v
	}
	return verdict{}
}

// fires counts the call and reports whether the rule is for it.
func (r *armed) fires(c call) bool {
	if r.Op != Any && r.Op != c.op || !r.touches(c) {
		return false
	}
	r.seen++
	if r.seen <= r.After || r.Count > 0 && r.fired >= r.Count {
		return false
	}
	return r.Probability == 0 || r.rng.Float64() < r.Probability
}

// prefix is how much of a torn write of n bytes is written.
func (r *armed) prefix(n, unit int64) int64 {
	most := max(n-1, 0) / unit
	if r.TornAt > 0 {
		return min(r.TornAt/unit, most) * unit
	}
	return r.rng.Int64N(most+1) * unit
}

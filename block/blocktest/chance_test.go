package blocktest

import (
	"flag"
	"testing"
)

// With a seed each repetition of a check draws other choices, and tells from
// which seed; from that they are the same again.
func TestSeedOfARepetition(t *testing.T) {
	oldSeed, oldRuns, oldRapid := chance.seed, chance.runs, flag.Lookup("rapid.seed").Value.String()
	t.Cleanup(func() {
		chance.seed, chance.runs = oldSeed, oldRuns
		setFlag("rapid.seed", oldRapid)
	})
	chance.runs = map[string]uint64{}
	draw := func(seed uint64) (s Suite, first uint64) {
		chance.seed = seed
		s.reseed(newRecorder(t))
		return s, (&probe{s: &s}).rand(3, 4).Uint64()
	}
	a, one := draw(71)
	b, two := draw(71)
	if a.seed != 71 || b.seed != 72 || flag.Lookup("rapid.seed").Value.String() != "72" || one == two {
		t.Errorf("seeds %d and %d, rapid's %v, choices %x and %x", a.seed, b.seed, flag.Lookup("rapid.seed").Value, one, two)
	}
	clear(chance.runs)
	if c, again := draw(72); c.seed != 72 || again != two {
		t.Errorf("seed %d: %x, want %x again", c.seed, again, two)
	}
	if d, fixed := draw(0); d.seed != 0 || fixed != (&probe{s: &Suite{}}).rand(3, 4).Uint64() {
		t.Errorf("without a seed: %d", d.seed)
	}
}

package blocktest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
)

// Where the random choices of the checks come from: fixed seeds, so that a run
// is short and always the same, or the environment, for runs that try something
// new (see the package's comment).

const (
	seedVar   = "BLOCKTEST_SEED"
	checksVar = "BLOCKTEST_CHECKS"

	defaultChecks  = 20 // sequences of random operations
	defaultCrashes = 12
)

// chance is what the environment says, read once.
var chance = struct {
	seed   uint64 // 0: fixed seeds
	checks uint64 // 0: the defaults

	mu   sync.Mutex
	runs map[string]uint64 // how often a check ran, by its test's name
}{seed: fromEnv(seedVar), checks: fromEnv(checksVar), runs: map[string]uint64{}}

// fromEnv gives a number of the environment, 0 where it is not set.
func fromEnv(name string) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		panic(fmt.Sprintf("%s=%s is no number below 2^32", name, text))
	}
	return n
}

// setRapid sets rapid's defaults for the test binary. Flags given on the command
// line come later and win, and so does rapid's own environment.
func setRapid() {
	seed, checks := max(chance.seed, 1), uint64(defaultChecks)
	if chance.checks > 0 {
		checks = chance.checks
	}
	for _, d := range [...]struct{ name, env, value string }{
		{"rapid.checks", "RAPID_CHECKS", strconv.FormatUint(checks, 10)},
		{"rapid.seed", "RAPID_SEED", strconv.FormatUint(seed, 10)},
		{"rapid.shrinktime", "RAPID_SHRINKTIME", "5s"},
		{"rapid.nofailfile", "RAPID_NOFAILFILE", "true"},
	} {
		if _, ok := os.LookupEnv(d.env); !ok {
			setFlag(d.name, d.value)
		}
	}
}

func setFlag(name, value string) {
	if err := flag.Set(name, value); err != nil {
		panic(err)
	}
}

// reseed gives the suite the seed of the check that begins: with -count each
// repetition has the next one, and all tell theirs.
func (s *Suite) reseed(t testing.TB) {
	t.Helper()
	if chance.seed == 0 {
		return
	}
	chance.mu.Lock()
	s.seed = chance.seed + chance.runs[t.Name()]
	chance.runs[t.Name()]++
	chance.mu.Unlock()
	setFlag("rapid.seed", strconv.FormatUint(s.seed, 10))
	t.Logf("random choices from %s=%d", seedVar, s.seed)
}

// rand makes a source of random choices. a and b tell it from the check's
// others.
func (p *probe) rand(a, b uint64) *rand.Rand {
	const odd = 0x9e3779b97f4a7c15 // no two seeds meet in one a
	return rand.New(rand.NewPCG(a+p.s.seed*odd, b))
}

// crashes is how many images checkCrash makes.
func crashes() uint64 {
	if chance.checks > 0 {
		return chance.checks
	}
	return defaultCrashes
}

package lab

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// guestLoop is the script of a [GuestLoad].
//
//go:embed guest/load.sh
var guestLoop string

// GuestLoad is a guest that writes and verifies its first disk (of 8 MiB at
// least) until it is told to stop, and tells how long each cycle of a synced
// write of 64 KiB and a read of it from the disk took. Its methods are for the
// test's own goroutine.
type GuestLoad struct {
	t       TB
	p       *Proc
	console io.WriteCloser
	all     []time.Duration // of all cycles so far
}

// LoadReport is what a guest did and bore in its whole life.
type LoadReport struct {
	Cycles   int
	Verified int           // slots of 64 KiB that were read again at the end
	Typical  time.Duration // the median of the cycles
	Longest  time.Duration
}

// loadTimeout is for how long a single cycle may last before the test fails.
const loadTimeout = 2 * time.Minute

// StartGuestLoad starts the guest and returns when its work has begun. The
// configuration's script must be empty.
func StartGuestLoad(t TB, cfg GuestConfig) *GuestLoad {
	t.Helper()
	cfg.Script = guestLoop
	cmd := guestCommand(t, cfg)
	console, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("guest: console: %v", err)
	}
	g := &GuestLoad{t: t, console: console, p: StartCmd(t, cmd)}
	g.p.Expect("load begins")
	return g
}

// Proc returns the guest's QEMU.
func (g *GuestLoad) Proc() *Proc { return g.p }

// Cycles waits until the guest has finished n more cycles and returns how long
// the longest of those took, in steps of 10 ms.
func (g *GuestLoad) Cycles(n int) time.Duration {
	g.t.Helper()
	var longest time.Duration
	for range n {
		line, err := g.p.await("cycle ", loadTimeout)
		if err != nil {
			g.t.Fatalf("guest: %v", err)
		}
		took, err := cycleTime(line)
		if err != nil {
			g.t.Fatalf("guest: %v", err)
		}
		g.all = append(g.all, took)
		longest = max(longest, took)
	}
	return longest
}

// Seen takes the cycles that the guest has told of by now, so that Cycles waits
// for later ones only, and returns the longest of them.
func (g *GuestLoad) Seen() time.Duration {
	g.t.Helper()
	var longest time.Duration
	for {
		_, at, _ := g.p.out.find(g.p.next, "cycle ")
		if at < 0 {
			return longest
		}
		longest = max(longest, g.Cycles(1))
	}
}

// Typical returns the median of the cycles so far, of which there must be one.
func (g *GuestLoad) Typical() time.Duration {
	return slices.Sorted(slices.Values(g.all))[len(g.all)/2]
}

// Across does something to the guest's disk at the moment when the guest begins
// a cycle, and returns how long the longest cycle was until the guest works on.
func (g *GuestLoad) Across(do func()) time.Duration {
	g.t.Helper()
	g.Seen()
	if _, err := g.p.await("begin ", loadTimeout); err != nil {
		g.t.Fatalf("guest: %v", err)
	}
	do()
	return max(g.Seen(), g.Cycles(2))
}

// BearRestarts has what serves the guest's disk killed and started again by kill,
// three times, and then asked to end and started again by end, three times, and
// finishes. The sockets, or the mount, have to be kept meanwhile: the test fails
// where QEMU found nobody, or the guest waited for longer than such a restart takes,
// which is a second after a kill and 100 ms more than otherwise after a planned end
// (see [Goal]).
func (g *GuestLoad) BearRestarts(kill, end func()) {
	g.t.Helper()
	g.t.Logf("longest of 10 cycles without a restart: %v", g.Cycles(10))
	killed, planned := g.outages(kill), g.outages(end)
	r := g.Finish()
	g.t.Logf("longest cycle across each kill %v, each planned restart %v; %+v", killed, planned, r)
	killed.check(g.t, "a kill", r.Typical)
	planned.check(g.t, "a planned restart", r.Typical)
	Goal(g.t, "what the best planned restart added to a cycle", planned.shortest()-r.Typical, 100*time.Millisecond, longestOutage)
}

// Finish tells the guest to stop, waits until it has verified all that it wrote,
// and returns what it says. The test fails unless all of it came back as it was
// written and the guest's kernel has logged no I/O error.
func (g *GuestLoad) Finish() LoadReport {
	g.t.Helper()
	if _, err := io.WriteString(g.console, "stop\n"); err != nil {
		g.t.Fatalf("guest: tell it to stop: %v", err)
	}
	if err := g.p.WaitFor(loadTimeout); err != nil {
		g.t.Fatalf("QEMU: %v", err)
	}
	CheckGuest(g.t, g.p)
	g.Seen()
	return g.report()
}

func (g *GuestLoad) report() LoadReport {
	g.t.Helper()
	var r LoadReport
	var errors int
	line := g.p.Expect("load ends: ")
	_, rest, _ := strings.Cut(line, "load ends: ")
	if _, err := fmt.Sscanf(rest, "%d cycles, %d slots verified, %d I/O errors", &r.Cycles, &r.Verified, &errors); err != nil {
		g.t.Fatalf("guest: %q: %v", line, err)
	}
	if errors != 0 || r.Cycles != len(g.all) || r.Cycles == 0 || r.Verified == 0 {
		g.t.Fatalf("guest: %q, and %d cycles were seen", line, len(g.all))
	}
	r.Typical, r.Longest = g.Typical(), slices.Max(g.all)
	return r
}

// cycleTime reads a line "cycle N CS".
func cycleTime(line string) (time.Duration, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != "cycle" {
		return 0, fmt.Errorf("%s", line) // what went wrong, in the guest's words
	}
	hundredths, err := strconv.Atoi(fields[2])
	if err != nil {
		return 0, fmt.Errorf("%q: %w", line, err)
	}
	return time.Duration(hundredths) * 10 * time.Millisecond, nil
}

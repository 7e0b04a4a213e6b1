package lab

import (
	"testing"
	"time"
)

// TestOutages: restarts that cost the guest as long as the server was away, and what
// its own slowness adds, are to be borne; one of QEMU's pauses each time is not.
func TestOutages(t *testing.T) {
	const ms = time.Millisecond
	good, slow, paused := outage{150 * ms, 40 * ms}, outage{2500 * ms, 2300 * ms}, outage{1150 * ms, 40 * ms}
	for _, c := range []struct {
		all          outages
		busy, fails  bool
		wantShortest time.Duration
	}{
		{outages{good, good, good}, false, false, 150 * ms},
		{outages{good, slow, good}, false, true, 150 * ms},
		{outages{slow, slow, slow}, true, false, 2500 * ms},
		{outages{paused, slow, paused}, true, false, 1150 * ms},
		{outages{paused, paused, paused}, true, true, 1150 * ms},
		{outages{good, {time.Minute, 40 * ms}}, true, true, 150 * ms},
	} {
		t.Setenv("SLUICE_QUIET", map[bool]string{false: "1"}[c.busy])
		failure, _ := failing(t, func(t TB) { c.all.check(t, "a kill", 100*ms) })
		if (failure != "") != c.fails || c.all.shortest() != c.wantShortest {
			t.Errorf("%v: %q, shortest %v", c.all, failure, c.all.shortest())
		}
	}
}

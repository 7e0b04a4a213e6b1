package suite

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/bench/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCellsInterleave(t *testing.T) {
	servers, err := Choose("", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := Plan{Servers: servers, Workloads: Workloads(), Repetitions: 2, Seed: 5}
	order := func(repetition int) (out []string) {
		for _, c := range p.cells(repetition) {
			out = append(out, c.workload.Name+" "+c.server.Name)
		}
		return out
	}
	first, again, second := order(1), order(1), order(2)
	if !slices.Equal(first, again) {
		t.Error("the same seed gives another order")
	}
	if slices.Equal(first, second) {
		t.Error("all repetitions have the same order")
	}
	slices.Sort(first)
	slices.Sort(second)
	if !slices.Equal(first, second) || len(slices.Compact(first)) != len(second) {
		t.Error("the repetitions do not hold the same cells, each once")
	}
	for i, c := range p.cells(1) {
		if c.server.Against != "" && !slices.Contains([]string{p.cells(1)[i-1].server.Name, p.cells(1)[i+1].server.Name}, c.server.Against) {
			t.Errorf("%s under %s is not beside %s", c.server.Name, c.workload.Name, c.server.Against)
		}
	}
	if p.Samples() != 2*len(second) {
		t.Errorf("Samples() = %d", p.Samples())
	}
	for _, no := range []string{"rr64x4 nbdkit-memory", "cr1 local", "rr64x4 local", "mx32 nbdkit-null", "sr1 sluice-metrics", "rr1 nbdcopy", "n2f sluice",
		"rr64 qsd-fuse", "mx32 direct", "rr16x4 sluice-fuse", "cr1 direct", "sw4 sluice", "sw4 local", "sw4 nbdkit-null", "rw16 sluice-daemon"} {
		if slices.Contains(second, no) {
			t.Errorf("%s is not wanted", no)
		}
	}
	for _, server := range []string{"sluice-fuse", "sluice-pass", "qsd-fuse", "qsd-fuse-uring", "direct"} {
		for _, w := range []string{"sr1", "sr4", "sw1", "sw4", "rr1", "rr16", "rw16"} {
			if !slices.Contains(second, w+" "+server) {
				t.Errorf("no %s under %s", server, w)
			}
		}
	}
}

// The whole default run has to stay a coffee break.
func TestDefaultRunIsShort(t *testing.T) {
	servers, err := Choose("", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := Plan{Servers: servers, Workloads: Workloads(), Repetitions: 5, Seconds: 1}
	if d := p.Duration(); d.Minutes() > 22 {
		t.Errorf("a default run takes %s", d)
	}
}

// A client that hangs ends the sample, not the run, and its server goes first.
func TestHungClientIsEnded(t *testing.T) {
	server, err := start(t.Context(), "x", []string{"sleep", "60"}, func(context.Context) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	_, err = unhung(t.Context(), server, 20*time.Millisecond, func(ctx context.Context) (report.Sample, error) {
		_, err := runClient(ctx, "sleep", "60")
		return report.Sample{}, err
	})
	if want := "hung: the client of x did not end within 20ms"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if server.alive() {
		t.Error("the server is still there")
	}
}

// An interrupted run ends as such, and a client that is done in time says how it went.
func TestUnhungPassesResultsOn(t *testing.T) {
	server, err := start(t.Context(), "x", []string{"sleep", "60"}, func(context.Context) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer server.stop()
	s, err := unhung(t.Context(), server, time.Minute, func(context.Context) (report.Sample, error) {
		return report.Sample{Ops: 7}, nil
	})
	if err != nil || s.Ops != 7 || !server.alive() {
		t.Errorf("%+v, %v", s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = unhung(ctx, server, time.Minute, func(ctx context.Context) (report.Sample, error) {
		cancel()
		_, err := runClient(ctx, "sleep", "60")
		return report.Sample{}, err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

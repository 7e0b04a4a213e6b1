package report

import (
	"fmt"
	"math"
	"strings"
)

// Target is one of the project's speed goals, on the page-cached file with one connection, or on a FUSE file.
type Target struct {
	Server   string // that it is about; empty: Subject
	Workload string
	Peers    []string // with several the best of them in each repetition counts; none: an absolute goal
	CPU      bool     // compares the server's CPU cost (at most Limit) instead of the rate (at least Limit)
	Unit     Unit     // of an absolute goal
	Limit    float64
}

// Subject is the server that most targets are about.
const Subject = "sluice"

// The others: a FUSE file, and one that the kernel reads past us.
const (
	fuseSubject = Subject + "-fuse"
	passSubject = Subject + "-pass"
)

// Targets are the goals that --check judges.
var Targets = []Target{
	{Workload: "rr1", Peers: []string{"qemu-nbd"}, Limit: 2.5},
	{Workload: "rr1", Peers: []string{"nbdkit-file"}, Limit: 1.4},
	{Workload: "rr16", Peers: []string{"qemu-nbd"}, Limit: 2.2},
	{Workload: "rr16", Peers: []string{"nbdkit-file"}, Limit: 1.25},
	{Workload: "rr64", Peers: []string{"qemu-nbd"}, Limit: 2.2},
	{Workload: "rr64", Peers: []string{"nbdkit-file"}, Limit: 1.25},
	{Workload: "sr1", Peers: []string{"qemu-nbd"}, Limit: 2},
	{Workload: "sr1", Peers: []string{"nbdkit-file"}, Limit: 1.3},
	{Workload: "sr4", Peers: []string{"qemu-nbd"}, Limit: 2},
	{Workload: "sr4", Peers: []string{"nbdkit-file"}, Limit: 1.3},
	{Workload: "sr1", Peers: []string{"nbdkit-file"}, CPU: true, Limit: 0.25},
	{Workload: "sr4", Peers: []string{"nbdkit-file"}, CPU: true, Limit: 0.25},
	{Workload: "sw1", Peers: []string{"qemu-nbd", "nbdkit-file"}, Limit: 1},
	{Workload: "rw16", Peers: []string{"qemu-nbd", "nbdkit-file"}, Limit: 1.25},
	{Workload: "rr16", CPU: true, Unit: PerOp, Limit: 4},
	{Workload: "sr1", CPU: true, Unit: PerGiB, Limit: 0.10},
	{Workload: "sr4", CPU: true, Unit: PerGiB, Limit: 0.10},
	{Server: fuseSubject, Workload: "rr1", Peers: []string{"qsd-fuse"}, Limit: 3},
	{Server: fuseSubject, Workload: "rr16", Peers: []string{"qsd-fuse"}, Limit: 3},
	{Server: fuseSubject, Workload: "sr1", Peers: []string{"qsd-fuse"}, Limit: 2},
	{Server: fuseSubject, Workload: "sr4", Peers: []string{"qsd-fuse"}, Limit: 2},
	{Server: passSubject, Workload: "rr1", Peers: []string{"direct"}, Limit: 0.9},
	{Server: passSubject, Workload: "rr16", Peers: []string{"direct"}, Limit: 0.9},
	{Server: passSubject, Workload: "sr1", Peers: []string{"direct"}, Limit: 0.9},
	{Server: passSubject, Workload: "sr4", Peers: []string{"direct"}, Limit: 0.9},
}

// About returns the server that the target is about.
func (t Target) About() string {
	if t.Server == "" {
		return Subject
	}
	return t.Server
}

// Verdict is the outcome of one target.
type Verdict struct {
	Target
	Measured Stat // N is 0 when something needed was not measured
	Pass     bool
}

// Check judges every target; a target that was not measured does not pass.
func (r *Report) Check() []Verdict {
	var out []Verdict
	for _, t := range Targets {
		out = append(out, r.judge(t))
	}
	return out
}

func (r *Report) judge(t Target) Verdict {
	v := Verdict{Target: t}
	for _, w := range r.Workloads {
		if w.Name != t.Workload {
			continue
		}
		figure, choose := Rate, Choose(math.Max)
		if t.CPU {
			figure, choose = Cost, math.Min
		}
		if len(t.Peers) == 0 {
			v.Measured = r.Stat(t.About(), w, figure)
		} else {
			v.Measured = r.Ratio(t.About(), t.Peers, w, figure, choose)
		}
	}
	if v.Measured.N > 0 {
		v.Pass = (t.CPU && v.Measured.Median <= t.Limit) || (!t.CPU && v.Measured.Median >= t.Limit)
	}
	return v
}

// Passed tells whether all verdicts pass.
func Passed(vs []Verdict) bool {
	for _, v := range vs {
		if !v.Pass {
			return false
		}
	}
	return true
}

// Goal says the target in words, for instance "rate >= 2.50x qemu-nbd".
func (v Verdict) Goal() string {
	what, sign := "rate", ">="
	if v.CPU {
		what, sign = "server CPU", "<="
	}
	if v.Server != "" {
		what += " of " + v.Server
	}
	switch {
	case len(v.Peers) > 1:
		return fmt.Sprintf("%s %s %.2fx the better of %s", what, sign, v.Limit, strings.Join(v.Peers, ", "))
	case len(v.Peers) == 1:
		return fmt.Sprintf("%s %s %.2fx %s", what, sign, v.Limit, v.Peers[0])
	}
	return fmt.Sprintf("%s %s %s", what, sign, v.amount(v.Limit))
}

// Value says what was measured in the same terms.
func (v Verdict) Value() string {
	if v.Measured.N == 0 {
		return "not measured"
	}
	return v.amount(v.Measured.Median)
}

// Verdict says pass or fail.
func (v Verdict) Verdict() string {
	if v.Pass {
		return "pass"
	}
	return "FAIL"
}

func (v Verdict) amount(x float64) string {
	switch {
	case len(v.Peers) > 0:
		return fmt.Sprintf("%.2fx", x)
	case v.Unit == PerGiB:
		return fmt.Sprintf("%.2f s/GiB", x)
	}
	return fmt.Sprintf("%.1f us/op", x)
}

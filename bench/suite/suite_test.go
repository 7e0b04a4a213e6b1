package suite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"sluice/bench/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseFio(t *testing.T) {
	out, err := os.ReadFile("testdata/fio-mix.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseFio(out)
	if err != nil {
		t.Fatal(err)
	}
	want := fioResult{ops: 62506 + 27152, bytes: 256024576 + 111214592, seconds: 1.004, p50: 370.688, p99: 19791.872}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseFioRejects(t *testing.T) {
	for name, out := range map[string]string{
		"nothing":  "",
		"text":     "fio: engine nbd not loadable\n",
		"cut":      "{\n  \"jobs\" : [",
		"no job":   "{\n  \"jobs\" : [] }",
		"an error": "{\n  \"jobs\" : [ {\"error\": 5} ] }",
		"no I/O":   "{\n  \"jobs\" : [ {\"error\": 0, \"read\": {\"runtime\": 1000}} ] }",
	} {
		if r, err := parseFio([]byte(out)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, r)
		}
	}
}

// The latency of a pure write load is that of its writes.
func TestParseFioWrites(t *testing.T) {
	out := `{
 "jobs" : [{"error": 0, "read": {"clat_ns": {}}, "write": {"io_bytes": 8192, "total_ios": 2, "runtime": 500,
  "clat_ns": {"percentile": {"50.000000": 1500, "99.000000": 2500}}}}] }`
	got, err := parseFio([]byte(out))
	if want := (fioResult{ops: 2, bytes: 8192, seconds: 0.5, p50: 1.5, p99: 2.5}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestParseProcStat(t *testing.T) {
	line := "42 (a) b (c)) S 7 42 42 0 -1 4194560 1000 0 0 0 11 22 33 44 20 0 3 0 555 1000000 250 18446744073709551615 1 1\n"
	got, err := parseProcStat([]byte(line))
	if want := (procStat{pid: 42, parent: 7, ticks: 110, rssPages: 250}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 no name", "42 (x) S 1 2", strings.Replace(line, " 22 ", " x ", 1), strings.Replace(line, "42", "x", 1)} {
		if s, err := parseProcStat([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, s)
		}
	}
}

func TestDescends(t *testing.T) {
	all := map[int]procStat{
		1: {pid: 1}, 2: {pid: 2, parent: 1}, 3: {pid: 3, parent: 2}, 4: {pid: 4, parent: 1},
		8: {pid: 8, parent: 9}, 9: {pid: 9, parent: 8}, // a table that was read while it changed
	}
	for pid, want := range map[int]bool{1: false, 2: true, 3: true, 4: false, 8: false} {
		if got := descends(all, all[pid], 2); got != want {
			t.Errorf("descends(%d, 2) = %v", pid, got)
		}
	}
}

func TestTreeUsageOfThisProcess(t *testing.T) {
	u, err := treeUsage(os.Getpid())
	if err != nil || u.rss < 1<<20 {
		t.Errorf("got %+v, %v", u, err)
	}
	if _, err := treeUsage(-1); err == nil {
		t.Error("no error for a process that is not there")
	}
}

func TestMachineTimes(t *testing.T) {
	before, err := parseMachineTimes([]byte("cpu  100 0 100 1000 100 0 0 0 0 0\ncpu0 1 2 3\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseMachineTimes([]byte("cpu  150 10 120 1080 110 10 10 10 0 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	busy, steal := after.since(before)
	if fmt.Sprintf("%.2f %.3f", busy, steal) != "1.00 0.050" {
		t.Errorf("busy %v, steal %v", busy, steal)
	}
	if _, err := parseMachineTimes([]byte("cpu 1 2\n")); err == nil {
		t.Error("no error for a short line")
	}
	if _, err := readMachineTimes(); err != nil {
		t.Error(err)
	}
}

func TestSelect(t *testing.T) {
	ws, err := Select("rr16,sr1")
	if err != nil || len(ws) != 2 || ws[0].Name != "sr1" || ws[1].Name != "rr16" {
		t.Errorf("got %v, %v", ws, err)
	}
	if _, err := Select("rr16,rr17"); err == nil || !strings.Contains(err.Error(), `unknown workload "rr17"`) {
		t.Errorf("got %v", err)
	}
	all, err := Select("")
	if err != nil || len(all) != len(Workloads()) {
		t.Errorf("got %d, %v", len(all), err)
	}
}

// Every workload that the project's targets name has to be there, and every peer.
func TestTargetsCanBeMeasured(t *testing.T) {
	servers, err := Choose("", nil)
	if err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(servers, func(s Server) bool { return s.Name == name && s.Kind == report.File })
	}
	for _, target := range report.Targets {
		if _, err := Select(target.Workload); err != nil {
			t.Error(err)
		}
		for _, name := range append([]string{report.Subject}, target.Peers...) {
			if !has(name) {
				t.Errorf("no server %s on the file", name)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	names := func(list string, custom ...string) string {
		t.Helper()
		servers, err := Choose(list, custom)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range servers {
			out = append(out, s.Name+":"+string(s.Kind))
		}
		return strings.Join(out, " ")
	}
	const all = "sluice:file qemu-nbd:file qsd-uring:file nbdkit-file:file go-nbd:file local:local " +
		"sluice-mem:mem nbdkit-memory:mem nbdkit-null:null"
	for _, c := range []struct{ got, want string }{
		{names(""), all},
		{names("nbdkit-null,qsd-threads"), "qsd-threads:file nbdkit-null:null"},
		{names("qemu-nbd", "sluice-x=x serve {file} {socket}"), "qemu-nbd:file sluice-x:file"},
		{names("qemu-nbd", "ram={sluice} {size} {socket}"), "qemu-nbd:file ram:mem"},
		{names("", "sluice=x {file} {socket}"), all},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestChooseRejects(t *testing.T) {
	for _, c := range []struct{ list, custom, want string }{
		{"qemu-ndb", "", `unknown server "qemu-ndb"; there are sluice, qemu-nbd`},
		{"", "x", "not of the form name=command"},
		{"", "=x {socket}", "not of the form name=command"},
		{"", "x=serve {file}", "does not say where {socket} goes"},
	} {
		var custom []string
		if c.custom != "" {
			custom = []string{c.custom}
		}
		if _, err := Choose(c.list, custom); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Choose(%q, %q): %v, want %q", c.list, c.custom, err, c.want)
		}
	}
}

func TestArgs(t *testing.T) {
	servers, err := Choose("sluice", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := servers[0].Args(Places{Sluice: "/a b/sluice", Socket: "/tmp/s", File: "/x y/disk"})
	want := []string{"/a b/sluice", "serve", "/x y/disk", "--nbd", "unix:/tmp/s"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := servers[0].Documented("bin/sluice").Command; got != "bin/sluice serve {file} --nbd unix:{socket}" {
		t.Errorf("documented as %q", got)
	}
}

func TestLookupNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for list, want := range map[string]string{
		"sluice":      "build it with: make build",
		"qemu-nbd":    "apt-get install qemu-utils",
		"qsd-uring":   "apt-get install qemu-system-common",
		"nbdkit-null": "apt-get install nbdkit",
		"local":       "apt-get install fio",
	} {
		servers, err := Choose(list, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := Plan{Servers: servers, Sluice: "bin/no-such-program"}
		if err := p.Lookup(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", list, err, want)
		}
	}
	for list, want := range map[string]string{"rr1": "apt-get install fio", "cr1": "apt-get install libnbd-bin"} {
		ws, err := Select(list)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Plan{Workloads: ws}).Lookup(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", list, err, want)
		}
	}
}

func TestFioArgs(t *testing.T) {
	ws, err := Select("mx32,sr4x4,rr16")
	if err != nil {
		t.Fatal(err)
	}
	const tail = " --time_based --runtime=1200ms --norandommap --thread --group_reporting --output-format=json"
	want := []string{
		"--name=rr16 --ioengine=io_uring --filename=/d --invalidate=0 --rw=randread --bs=4k --iodepth=16 --numjobs=1 --size=64" + tail,
		"--name=mx32 --ioengine=nbd --uri=nbd+unix:///?socket=/s --rw=randrw --bs=4k --iodepth=32 --numjobs=1 --rwmixread=70 --size=64" + tail,
		"--name=sr4x4 --ioengine=nbd --uri=nbd+unix:///?socket=/s --rw=read --bs=1m --iodepth=1 --numjobs=4 --size=16 --offset_increment=16" + tail,
	}
	for i, w := range ws {
		at := target{socket: "/s", size: "64", part: "16", runtime: "1200ms"}
		if w.Name == "rr16" {
			at.file = "/d"
		}
		if got := strings.Join(w.fioArgs(at), " "); got != want[i] {
			t.Errorf("got  %s\nwant %s", got, want[i])
		}
	}
}

// Depth divides evenly among the connections, or a column would not be what its title says.
func TestWorkloadsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range Workloads() {
		if seen[w.Name] || w.Title == "" || w.Command == "" {
			t.Errorf("workload %+v", w)
		}
		seen[w.Name] = true
		if slices.Contains(w.fio, "--iodepth=0") {
			t.Errorf("%s has no depth", w.Name)
		}
	}
}

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
	if p.Samples() != 2*len(second) {
		t.Errorf("Samples() = %d", p.Samples())
	}
	for _, no := range []string{"rr64x4 nbdkit-memory", "cr1 local", "rr64x4 local", "mx32 nbdkit-null"} {
		if slices.Contains(second, no) {
			t.Errorf("%s is not wanted", no)
		}
	}
}

// The whole default run has to stay under a quarter of an hour.
func TestDefaultRunIsShort(t *testing.T) {
	servers, err := Choose("", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := Plan{Servers: servers, Workloads: Workloads(), Repetitions: 5, Seconds: 1}
	if d := p.Duration(); d.Minutes() > 14 {
		t.Errorf("a default run takes %s", d)
	}
}

func TestDatasetHoldsNoZeroPage(t *testing.T) {
	dir := t.TempDir()
	d, err := newDataset(context.Background(), dir, 5<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(d.disk)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(d.source)
	if err != nil {
		t.Fatal(err)
	}
	if len(disk) != 5<<20 || len(source) != len(disk) || slices.Equal(disk, source) {
		t.Errorf("disk of %d and source of %d bytes", len(disk), len(source))
	}
	zero := string(make([]byte, 4096))
	for off := 0; off < len(disk); off += 4096 {
		if string(disk[off:off+4096]) == zero {
			t.Fatalf("zeroes at %d", off)
		}
	}
	if err := d.cache(context.Background()); err != nil {
		t.Error(err)
	}
	if err := d.settle(); err != nil {
		t.Error(err)
	}
	if err := d.remove(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDatasetStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d, err := newDataset(ctx, t.TempDir(), 5<<20, false)
	if err == nil || d == nil {
		t.Fatalf("got %v, %v; want a data set to remove and an error", d, err)
	}
	if err := d.remove(); err != nil {
		t.Error(err)
	}
}

func TestStartTellsWhyAServerEnded(t *testing.T) {
	_, err := start(context.Background(), "x", []string{"sh", "-c", "echo no such image >&2; exit 3"}, filepath.Join(t.TempDir(), "s"))
	if err == nil || err.Error() != "x ended before it served: no such image" {
		t.Errorf("got %v", err)
	}
}

func TestStartGivesUpWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := start(ctx, "x", []string{"sleep", "60"}, filepath.Join(t.TempDir(), "s")); err == nil {
		t.Error("no error")
	}
}

func TestRunClientTellsWhyItFailed(t *testing.T) {
	_, err := runClient(context.Background(), "sh", "-c", "echo out; echo cannot connect >&2; exit 1")
	if err == nil || err.Error() != "sh: exit status 1: cannot connect" {
		t.Errorf("got %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var b tail
	for i := range 1000 {
		_, _ = fmt.Fprintf(&b, "line %d\n", i)
	}
	if got := b.String(); len(got) > tailSize || !strings.HasSuffix(got, "line 998 line 999") {
		t.Errorf("got %q", got)
	}
}

func TestMachine(t *testing.T) {
	m, err := Machine(t.TempDir())
	if err != nil || m.Cores < 1 || m.MemoryMiB < 1 || m.Kernel == "" || m.CPU == "" || m.FileSystem == "" {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := Machine("/no/such/folder"); err == nil {
		t.Error("no error for a folder that is not there")
	}
}

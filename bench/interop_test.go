//go:build interop

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/bench/report"
	"sluice/internal/lab"
)

// build makes the program under test; it has to be a program because it starts itself as one of the servers.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bench")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// command prepares a run whose files all lie in tmp.
func command(bench, tmp string, args ...string) *exec.Cmd {
	cmd := exec.Command(bench, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	return cmd
}

func readReport(t *testing.T, path string) *report.Report {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &report.Report{}
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// exitCode returns how a finished program ended.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Every peer answers every kind of client.
func TestQuickRunOfAllPeers(t *testing.T) {
	bench, tmp, out := build(t), t.TempDir(), t.TempDir()
	results, md, svg := filepath.Join(out, "r.json"), filepath.Join(out, "r.md"), filepath.Join(out, "r.svg")
	const servers = "qemu-nbd,qemu-nbd-uring,qsd-uring,qsd-threads,nbdkit-file,go-nbd,local,nbdkit-memory,nbdkit-null"
	cmd := command(bench, tmp, "--quick", "--seconds=0.2", "--size=32M", "--servers="+servers,
		"--workloads=sr4,rr16,mx32,rw16x4,cr4,cw1", "--json="+results, "--markdown="+md, "--svg="+svg)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	r := readReport(t, results)
	if want := 6*6 + 3 + 2*2; len(r.Samples) != want {
		t.Errorf("%d samples, want %d", len(r.Samples), want)
	}
	for _, s := range r.Samples {
		checkSample(t, s)
	}
	for _, p := range r.Programs {
		if p.Version == "" || p.Version == "unknown" {
			t.Errorf("%s has no version", p.Name)
		}
	}
	for _, path := range []string{md, svg} {
		if text, err := os.ReadFile(path); err != nil || !bytes.Contains(text, []byte("nbdkit-file")) {
			t.Errorf("%s: %v", path, err)
		}
	}
	wantEmpty(t, tmp)
}

func checkSample(t *testing.T, s report.Sample) {
	t.Helper()
	isCopy := strings.HasPrefix(s.Workload, "c")
	switch {
	case s.Error != "" || s.Seconds < 0.1 || s.Bytes < 1<<20:
		t.Errorf("no result: %+v", s)
	case !isCopy && (s.Ops == 0 || s.P99us < s.P50us):
		t.Errorf("no requests: %+v", s)
	case s.Server != "local" && (s.RSSBytes < 1<<20 || s.ServerCPU > s.MachineCPU+0.1):
		t.Errorf("server's use is off: %+v", s)
	}
}

// Our own configurations that have sections of their own: what counting costs, and how fast we copy.
func TestQuickRunOfOurs(t *testing.T) {
	bench, tmp, out := build(t), t.TempDir(), t.TempDir()
	results, md := filepath.Join(out, "r.json"), filepath.Join(out, "r.md")
	cmd := command(bench, tmp, "--quick", "--seconds=0.2", "--size=32M", "--servers=sluice,sluice-metrics,sluice-copy,nbdcopy",
		"--workloads=rr16,sw4x4,n2f,f2n", "--sluice="+lab.Sluice(t), "--json="+results, "--markdown="+md)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var got []string
	for _, s := range readReport(t, results).Samples {
		got = append(got, s.Workload+" "+s.Server)
		if s.Error != "" || s.Bytes < 1<<20 || s.Seconds <= 0 || s.RSSBytes < 1<<20 {
			t.Errorf("no result: %+v", s)
		}
	}
	slices.Sort(got)
	want := []string{
		"f2n nbdcopy", "f2n sluice-copy", "n2f nbdcopy", "n2f sluice-copy", "rr16 sluice", "rr16 sluice-metrics", "sw4x4 sluice",
	}
	if !slices.Equal(got, want) {
		t.Errorf("samples %q, want %q", got, want)
	}
	for _, section := range []string{"## sluice-metrics beside sluice\n", "## Programs that copy\n"} {
		if text, err := os.ReadFile(md); err != nil || !bytes.Contains(text, []byte(section)) {
			t.Errorf("no %q: %v", section, err)
		}
	}
	wantEmpty(t, tmp)
}

// A server that does not work is told, and does not stop the others.
func TestBrokenServerIsReported(t *testing.T) {
	bench, tmp := build(t), t.TempDir()
	results := filepath.Join(t.TempDir(), "r.json")
	cmd := command(bench, tmp, "--quick", "--seconds=0.2", "--size=32M", "--servers=nbdkit-null", "--workloads=rr16",
		"--server=broken=false {socket} {file}", "--json="+results)
	text, err := cmd.CombinedOutput()
	if code := exitCode(t, err); code != 1 || !bytes.Contains(text, []byte("broken ended before it served")) {
		t.Errorf("exit code %d\n%s", code, text)
	}
	r := readReport(t, results)
	if len(r.Samples) != 2 || len(r.Failures()) != 1 {
		t.Errorf("samples %+v", r.Samples)
	}
	wantEmpty(t, tmp)
}

// startLong starts a run that would take minutes and returns after its first sample.
func startLong(t *testing.T, bench, tmp, results string) *exec.Cmd {
	t.Helper()
	cmd := command(bench, tmp, "--quick", "--repeat=100", "--servers=qemu-nbd,nbdkit-file,go-nbd,nbdkit-memory",
		"--workloads=rr1,cr1", "--size=32M", "--json="+results)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "[") {
			go func() { _, _ = io.Copy(io.Discard, stderr) }() // ends with the program
			return cmd
		}
	}
	t.Fatalf("no sample was taken: %v", cmd.Wait())
	return nil
}

// users lists the processes that have the folder in their command lines: servers and clients of a run in it.
func users(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range paths {
		if text, err := os.ReadFile(p); err == nil && bytes.Contains(text, []byte(dir)) {
			out = append(out, string(bytes.ReplaceAll(text, []byte{0}, []byte(" "))))
		}
	}
	return out
}

func TestInterruptLeavesNothing(t *testing.T) {
	bench, tmp := build(t), t.TempDir()
	results := filepath.Join(t.TempDir(), "r.json")
	cmd := startLong(t, bench, tmp, results)
	awaitUsers(t, tmp, true)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Wait()); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if left := users(t, tmp); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
	if _, err := os.Stat(results); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("partial results were written: %v", err)
	}
	wantEmpty(t, tmp)
}

// Even a killed run takes its servers with it.
func TestKillTakesTheServers(t *testing.T) {
	bench, tmp := build(t), t.TempDir()
	cmd := startLong(t, bench, tmp, filepath.Join(t.TempDir(), "r.json"))
	awaitUsers(t, tmp, true)
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	awaitUsers(t, tmp, false)
}

// awaitUsers returns when there are processes that use the folder, or none any more. Between two samples there may be
// none for a moment, so a test that wants to hit a running server has to wait for one.
func awaitUsers(t *testing.T, dir string, some bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); (len(users(t, dir)) > 0) != some; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("running: %q; wanted some: %v", users(t, dir), some)
		}
	}
}

// samplesOf lists a run's samples as "workload server", sorted; each has to have a result.
func samplesOf(t *testing.T, path string) []string {
	t.Helper()
	var out []string
	for _, s := range readReport(t, path).Samples {
		out = append(out, s.Workload+" "+s.Server)
		if s.Error != "" || s.Bytes < 1<<20 || s.Seconds <= 0 || s.P99us < s.P50us || s.Server != "direct" && s.RSSBytes < 1<<20 {
			t.Errorf("no result: %+v", s)
		}
	}
	slices.Sort(out)
	return out
}

// product returns all "workload server", sorted.
func product(workloads, servers string) []string {
	var out []string
	for w := range strings.SplitSeq(workloads, ",") {
		for s := range strings.SplitSeq(servers, ",") {
			out = append(out, w+" "+s)
		}
	}
	slices.Sort(out)
	return out
}

const fuseLoads = "sr1,sr4,sw1,sw4,rr1,rr16,rw16"

// The FUSE files of others and the plain file answer every workload that ours is put under.
func TestQuickRunOnFUSEFiles(t *testing.T) {
	bench, tmp, out := build(t), t.TempDir(), t.TempDir()
	results, md := filepath.Join(out, "r.json"), filepath.Join(out, "r.md")
	const servers = "qsd-fuse,qsd-fuse-uring,direct"
	cmd := command(bench, tmp, "--quick", "--seconds=0.1", "--size=32M", "--servers="+servers,
		"--workloads="+fuseLoads, "--json="+results, "--markdown="+md)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got, want := samplesOf(t, results), product(fuseLoads, servers); !slices.Equal(got, want) {
		t.Errorf("samples %q, want %q", got, want)
	}
	if text, err := os.ReadFile(md); err != nil || !bytes.Contains(text, []byte("## FUSE files, opened with O_DIRECT\n")) {
		t.Errorf("no section: %v", err)
	}
	wantEmpty(t, tmp)
}

// A mount whose server died goes with the run.
func TestDeadMountIsTakenDown(t *testing.T) {
	bench, tmp := build(t), t.TempDir()
	results := filepath.Join(t.TempDir(), "r.json")
	const dies = `dies=timeout --signal=KILL 1 qemu-storage-daemon --blockdev driver=file,node-name=d,filename={file} ` +
		`--export type=fuse,id=e,node-name=d,mountpoint={mount}/disk,writable=on`
	cmd := command(bench, tmp, "--quick", "--seconds=3", "--size=32M", "--server="+dies, "--servers=direct",
		"--workloads=rr1", "--json="+results)
	text, err := cmd.CombinedOutput()
	if code := exitCode(t, err); code != 1 || !bytes.Contains(text, []byte("dies ended during the sample")) {
		t.Errorf("exit code %d\n%s", code, text)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(mounts, []byte(tmp)) {
		t.Errorf("still mounted: %v\n%s", err, mounts)
	}
	wantEmpty(t, tmp)
}

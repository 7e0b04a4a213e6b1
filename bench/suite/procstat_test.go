package suite

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestParseProcStat(t *testing.T) {
	line := "42 (a) b (c)) S 7 42 42 0 -1 4194560 1000 0 0 0 11 22 33 44 20 0 3 0 555 1000000 250 18446744073709551615 1 1\n"
	got, err := parseProcStat([]byte(line))
	if want := (procStat{pid: 42, parent: 7, reapedTicks: 77, rssPages: 250}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 no name", "42 (x) S 1 2", strings.Replace(line, " 33 ", " x ", 1), strings.Replace(line, "42", "x", 1)} {
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
	if err != nil || u.rss < 1<<20 || u.cpu <= 0 {
		t.Errorf("got %+v, %v", u, err)
	}
	if _, err := treeUsage(-1); err == nil {
		t.Error("no error for a process that is not there")
	}
}

// The clock of another process is readable, and agrees with what the kernel tells at its end.
func TestProcessClock(t *testing.T) {
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // the loop is over
		t.Fatal(err)
	}
	got, clockErr := processClock(cmd.Process.Pid)
	if err := errors.Join(clockErr, in.Close()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // read fails at the end of its input
	want := (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if got < want*0.5 || got > want+0.01 {
		t.Errorf("clock %v s, at the end %v s", got, want)
	}
	if _, err := processClock(cmd.Process.Pid); err == nil {
		t.Error("no error for a process that is gone")
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

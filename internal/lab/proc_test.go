package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestReadyReturnsTheURIs(t *testing.T) {
	p := Start(t, "sh", "-c", "echo starting; echo ready one:///; echo ready two:///; exec sleep 60")
	if got := p.Ready(); got != "one:///" {
		t.Errorf("first: %q", got)
	}
	if got := p.Ready(); got != "two:///" {
		t.Errorf("second: %q", got)
	}
	err := p.Stop()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || p.ExitCode() != -1 {
		t.Errorf("sleep ended by SIGTERM: %v, code %d", err, p.ExitCode())
	}
}

func TestStopLetsTheProcessEndInOrder(t *testing.T) {
	p := Start(t, "sh", "-c", `trap 'echo bye; exit 0' TERM; echo ready x; while :; do sleep 0.1; done`)
	p.Ready()
	if err := p.Stop(); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if !strings.Contains(p.Output(), "bye") {
		t.Errorf("output %q", p.Output())
	}
	if err := p.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestExpectFailsWhenTheProcessEnds(t *testing.T) {
	failure, log := failing(t, func(t TB) {
		Start(t, "sh", "-c", "echo no luck >&2; exit 3").Ready()
	})
	if !strings.Contains(failure, "ended without a line") || !strings.Contains(failure, "exit status 3") {
		t.Errorf("failure %q", failure)
	}
	if !strings.Contains(log, "no luck") {
		t.Errorf("the process' output is not in the log: %q", log)
	}
}

func TestExpectSeesAnUnfinishedLastLine(t *testing.T) {
	p := Start(t, "printf", `a\nend of it`)
	if got := p.Expect("end"); got != "end of it" {
		t.Errorf("got %q", got)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestAwaitGivesUp(t *testing.T) {
	p := Start(t, "sleep", "60")
	if _, err := p.await("ready", 20*time.Millisecond); err == nil || !strings.Contains(err.Error(), "printed no line") {
		t.Errorf("await: %v", err)
	}
}

func TestStubbornProcessIsKilled(t *testing.T) {
	p := Start(t, "sh", "-c", `trap '' TERM; echo ready x; while :; do sleep 0.05; done`)
	p.Ready()
	if p.terminate(100 * time.Millisecond) {
		t.Error("it ended on SIGTERM, which it ignores")
	}
	if p.state() != "signal: killed" {
		t.Errorf("state %q", p.state())
	}
}

func TestNothingOutlivesTheTest(t *testing.T) {
	var child, grandchild int
	failing(t, func(t TB) {
		p := Start(t, "sh", "-c", "sleep 300 & echo child $!; wait")
		line := p.Expect("child ")
		child = p.Pid()
		grandchild, _ = strconv.Atoi(strings.TrimPrefix(line, "child "))
	})
	for _, pid := range []int{child, grandchild} {
		if pid == 0 {
			t.Fatal("no pid")
		}
		awaitGone(t, pid)
	}
}

// awaitGone waits for a process to be gone or a zombie: a grandchild is reaped
// by the machine's init, whenever that likes to.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || strings.Contains(string(status), "\nState:\tZ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func TestKill9TakesTheWholeGroup(t *testing.T) {
	p := Start(t, "sh", "-c", "sleep 300 & echo child $!; wait")
	grandchild, _ := strconv.Atoi(strings.TrimPrefix(p.Expect("child "), "child "))
	p.Kill9()
	if p.ExitCode() != -1 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	awaitGone(t, grandchild)
}

func TestSignalReachesTheProcess(t *testing.T) {
	p := Start(t, "sh", "-c", `trap 'echo got it' USR1; echo ready x; while :; do sleep 0.05; done`)
	p.Ready()
	p.Signal(syscall.SIGUSR1)
	p.Expect("got it")
}

func TestRunReturnsStdout(t *testing.T) {
	if got := Run(t, "sh", "-c", "echo out; echo err >&2"); got != "out\n" {
		t.Errorf("got %q", got)
	}
	failure, _ := failing(t, func(t TB) { Run(t, "sh", "-c", "echo why >&2; exit 1") })
	if !strings.Contains(failure, "why") {
		t.Errorf("failure %q", failure)
	}
}

func TestStartSaysWhatCouldNotBeStarted(t *testing.T) {
	failure, _ := failing(t, func(t TB) { Start(t, "/no/such/program") })
	if !strings.Contains(failure, "/no/such/program") {
		t.Errorf("failure %q", failure)
	}
}

func TestUntilWaitsForTheCondition(t *testing.T) {
	file := t.TempDir() + "/made"
	p := Start(t, "sh", "-c", `sleep 0.1; : >"$0"; exec sleep 60`, file)
	made := func() bool {
		_, err := os.Stat(file)
		return err == nil
	}
	p.Until("the file is there", made)
	if !made() {
		t.Error("it is not")
	}
	failure, _ := failing(t, func(t TB) {
		Start(t, "true").Until("pigs fly", func() bool { return false })
	})
	if failure != "true ended before pigs fly (exit status 0)" {
		t.Errorf("failure %q", failure)
	}
}

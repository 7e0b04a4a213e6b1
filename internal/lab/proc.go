package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How long the lab waits. A loaded machine with two cores is the measure, not
// what the operations take.
const (
	lineTimeout = 60 * time.Second // for an expected line of output
	stopTimeout = 20 * time.Second // from SIGTERM to SIGKILL
	exitTimeout = 60 * time.Second // for a process that ends by itself
)

// Proc is a running process and the leader of a process group of its own. Its
// methods may be called by several goroutines, those that fail the test only by
// the test's own.
type Proc struct {
	t    TB
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when the process is reaped and its output is in
	err  error         // what Wait of os/exec said; read after done

	mu   sync.Mutex
	next int // the line after the last one that Expect returned
}

// Start starts a program, to be stopped with the test at the latest. When the
// test fails, the process' output goes into its log.
func Start(t TB, path string, args ...string) *Proc {
	t.Helper()
	return StartCmd(t, exec.Command(path, args...))
}

// StartCmd is Start for a command with an environment, a folder or extra files
// of its own. Stdout, Stderr and SysProcAttr must be unset.
func StartCmd(t TB, cmd *exec.Cmd) *Proc {
	t.Helper()
	p := &Proc{t: t, name: filepath.Base(cmd.Path), cmd: cmd, out: newOutput(), done: make(chan struct{})}
	cmd.Stdout = stream{p.out, 0}
	cmd.Stderr = stream{p.out, 1}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// A grandchild that keeps the pipes open must not keep Wait from returning.
	cmd.WaitDelay = 2 * time.Second
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	t.Cleanup(p.cleanup)
	return p
}

// run starts the process and waits for it. It keeps its thread all the while:
// Pdeathsig fires when the thread that started the process ends.
func (p *Proc) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	p.out.end()
	close(p.done)
}

// cleanup takes down what is still there and tells what it printed if the test
// failed.
func (p *Proc) cleanup() {
	if !p.exited() {
		p.terminate(stopTimeout)
	}
	// What the process itself started and left behind.
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	if p.t.Failed() {
		p.t.Logf("output of %s (pid %d, %s):\n%s", p.name, p.Pid(), p.state(), p.out.text())
	}
}

// Pid returns the process' id, which is also its group's.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Output returns what the process printed so far, stdout and stderr together.
func (p *Proc) Output() string { return p.out.text() }

// Stdout returns what the process printed on stdout so far.
func (p *Proc) Stdout() string { return p.out.stdoutText() }

// Done is closed when the process has ended and all its output is in.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Ready waits for the next line "ready URI" and returns the URI.
func (p *Proc) Ready() string {
	p.t.Helper()
	line := p.Expect("ready ")
	_, uri, _ := strings.Cut(line, "ready ")
	return uri
}

// Expect waits for the next line that contains text and returns it; lines
// before it are passed over. It fails the test when the process ends without
// such a line, or after a minute.
func (p *Proc) Expect(text string) string {
	p.t.Helper()
	line, err := p.await(text, lineTimeout)
	if err != nil {
		p.t.Fatalf("%v", err)
	}
	return line
}

// await is Expect with a time of its own and an error.
func (p *Proc) await(text string, timeout time.Duration) (string, error) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		line, at, more := p.out.find(p.next, text)
		if at >= 0 {
			p.next = at + 1
			return line, nil
		}
		if more == nil {
			<-p.done // it is about to be closed, and then the state is known
			return "", fmt.Errorf("%s ended without a line with %q (%s)", p.name, text, p.state())
		}
		select {
		case <-more:
		case <-deadline.C:
			return "", fmt.Errorf("%s printed no line with %q in %v", p.name, text, timeout)
		}
	}
}

// Until waits for something that the process does without printing a line: it
// asks cond every few milliseconds. It fails the test when the process ends
// first, or after a minute; what says in words what was waited for.
func (p *Proc) Until(what string, cond func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(lineTimeout); !cond(); {
		if p.exited() {
			p.t.Fatalf("%s ended before %s (%s)", p.name, what, p.state())
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: %v passed before %s", p.name, lineTimeout, what)
		}
		p.waited(10 * time.Millisecond)
	}
}

// Signal sends a signal to the process, not to its group.
func (p *Proc) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal %v to %s: %v", sig, p.name, err)
	}
}

// Stop ends the process with SIGTERM and returns what Wait returns. One that is
// still there after 20 seconds is killed, and the test fails.
func (p *Proc) Stop() error {
	p.t.Helper()
	if !p.exited() && !p.terminate(stopTimeout) {
		p.t.Fatalf("%s did not end within %v of SIGTERM and was killed", p.name, stopTimeout)
	}
	return p.err
}

// Kill9 ends the process' whole group with SIGKILL and returns when it is gone.
func (p *Proc) Kill9() {
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// Wait waits for a process that ends by itself: nil for exit code 0, otherwise
// an *exec.ExitError. It fails the test when that takes over a minute.
func (p *Proc) Wait() error {
	p.t.Helper()
	return p.WaitFor(exitTimeout)
}

// WaitFor is Wait with a time of its own.
func (p *Proc) WaitFor(timeout time.Duration) error {
	p.t.Helper()
	if !p.waited(timeout) {
		p.t.Fatalf("%s did not end within %v", p.name, timeout)
	}
	return p.err
}

// ExitCode returns the exit code of a process that has ended, -1 for one that a
// signal ended.
func (p *Proc) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// terminate sends SIGTERM and, after a while, SIGKILL to the group. It reports
// whether SIGTERM was enough; the process is gone either way.
func (p *Proc) terminate(timeout time.Duration) bool {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Logf("SIGTERM to %s: %v", p.name, err)
	}
	if p.waited(timeout) {
		return true
	}
	p.Kill9()
	return false
}

// waited waits for the end for some time and reports whether it came.
func (p *Proc) waited(timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// exited reports whether the process has ended.
func (p *Proc) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// state says in words how the process does.
func (p *Proc) state() string {
	if !p.exited() {
		return "running"
	}
	return p.cmd.ProcessState.String()
}

// Run runs a program to its end and returns its stdout; anything but exit code
// 0 fails the test, with the whole output.
func Run(t TB, path string, args ...string) string {
	t.Helper()
	p := Start(t, path, args...)
	if err := p.Wait(); err != nil {
		t.Fatalf("%s %s: %v\n%s", p.name, strings.Join(args, " "), err, p.Output())
	}
	return p.Stdout()
}

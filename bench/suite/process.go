package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"sluice/nbd"
)

// Times that a server gets, far beyond what any needs.
const (
	startLimit = 20 * time.Second
	stopLimit  = 10 * time.Second
	hangLimit  = 60 * time.Second // for a client, beyond the time that it was told to work
	pollEvery  = 2 * time.Millisecond
)

// process is a running server, in a process group of its own so that an interrupt from the terminal reaches only this
// program, which then stops the servers in order.
type process struct {
	name   string
	cmd    *exec.Cmd
	output *tail
	exited chan struct{} // closed after Wait has returned
}

// probe tells whether a server serves: nil if it does, otherwise what is missing.
type probe func(context.Context) error

// accepts is the probe of servers at a unix socket.
func accepts(socket string) probe {
	return func(context.Context) error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// exports is the probe of servers that listen before they have the export.
func exports(uri string) probe {
	return func(ctx context.Context) error {
		client, err := nbd.Dial(ctx, uri, nbd.ClientConfig{})
		if err != nil {
			return err
		}
		return client.Close()
	}
}

// start runs a server and returns when it serves.
func start(ctx context.Context, name string, args []string, serves probe) (*process, error) {
	p := &process{name: name, output: &tail{}, exited: make(chan struct{})}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	// The kernel kills the server when the thread that started it is gone: main is bound to the main thread, so that
	// is when this program has died without a chance to clean up.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code of a server that was told to stop says nothing
		close(p.exited)
	}()
	if err := p.await(ctx, serves); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// await asks until the server serves. The peers have no common way to say that they are ready, so the event itself, for
// instance an accepted connection, is what is tried.
func (p *process) await(ctx context.Context, serves probe) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := serves(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended before it served: %s", p.name, p.output)
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve: %w: %w: %s", p.name, context.Cause(ctx), err, p.output)
		case <-tick.C:
		}
	}
}

// alive tells whether the server still runs.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// stop ends the server and all that it started: first asked, then killed.
func (p *process) stop() {
	group := -p.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM) // it may be gone already
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-p.exited:
	case <-limit.C:
	}
	p.kill()
}

// kill ends them at once.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// runClient runs a client to its end and returns what it wrote on standard output.
func runClient(ctx context.Context, args ...string) ([]byte, error) {
	out, _, err := runCounted(ctx, args...)
	return out, err
}

// runCounted is runClient that also tells what the client used.
func runCounted(ctx context.Context, args ...string) ([]byte, usage, error) {
	var stdout bytes.Buffer
	stderr := &tail{}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, usage{}, ctx.Err()
		}
		return nil, usage{}, fmt.Errorf("%s: %w: %s", args[0], err, stderr)
	}
	used := usage{cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		used.rss = u.Maxrss << 10
	}
	return stdout.Bytes(), used, nil
}

// tail keeps the last bytes of what a program wrote, for error texts. mu guards buf: standard output and standard error
// may be written at the same time.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 400

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if extra := len(t.buf) - tailSize; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.Join(bytes.Fields(t.buf), []byte(" ")))
}

// Command demo shows Sluice at work, from an empty image to a virtual machine
// that runs on it: "make demo" builds the binary and calls it. Everything it
// makes lies in a temporary folder and is gone when it ends.
//
// It uses the lab as a test does, through a TB of its own: [stage] runs the
// demo in one goroutine and takes everything down when that has ended, whether
// by itself, by a failure or by a signal.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"sluice/internal/lab"
)

func main() {
	s := &stage{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		show(s, os.Stdout)
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	select {
	case <-ended:
	case sig := <-signals:
		fmt.Fprintf(os.Stderr, "demo: %v\n", sig)
		s.fail()
	}
	s.clean()
	if s.Failed() {
		os.Exit(1)
	}
}

// stage is the lab's TB outside of tests. mu guards all of it: a signal can
// come at any time.
type stage struct {
	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

var _ lab.TB = (*stage)(nil)

// Helper has no meaning here.
func (s *stage) Helper() {}

// Logf prints a line on stderr.
func (s *stage) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// Fatalf prints why the demo failed and ends its goroutine.
func (s *stage) Fatalf(format string, args ...any) {
	s.Logf("demo: "+format, args...)
	s.fail()
	runtime.Goexit()
}

// Cleanup adds something to do at the end, the last one first.
func (s *stage) Cleanup(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, fn)
}

// Failed reports whether the demo failed.
func (s *stage) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// TempDir makes a folder that goes at the end.
func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "sluice-demo")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *stage) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
}

// clean does what Cleanup collected.
func (s *stage) clean() {
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			s.mu.Unlock()
			return
		}
		last := s.cleanups[n-1]
		s.cleanups = s.cleanups[:n-1]
		s.mu.Unlock()
		last()
	}
}

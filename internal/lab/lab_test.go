package lab

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeTB records a failure instead of failing the test.
type fakeTB struct {
	*testing.T
	failure  string
	log      strings.Builder
	cleanups []func()
}

func (f *fakeTB) Logf(format string, args ...any) { fmt.Fprintf(&f.log, format+"\n", args...) }
func (f *fakeTB) Failed() bool                    { return f.failure != "" }
func (f *fakeTB) Cleanup(fn func())               { f.cleanups = append(f.cleanups, fn) }
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failing runs fn against a fake test, with its cleanups, and returns what it
// failed with and what it logged.
func failing(t *testing.T, fn func(TB)) (failure, log string) {
	t.Helper()
	f := &fakeTB{T: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(f.cleanups) - 1; i >= 0; i-- {
				f.cleanups[i]()
			}
		}()
		fn(f)
	}()
	<-done
	return f.failure, f.log.String()
}

func TestNeedNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	failure, _ := failing(t, func(t TB) { Need(t, "qemu-nbd", "nbdinfo", "no-such-program") })
	for _, want := range []string{"missing: qemu-nbd nbdinfo no-such-program", "recommends qemu-utils libnbd-bin no-such-program"} {
		if !strings.Contains(failure, want) {
			t.Errorf("failure %q does not contain %q", failure, want)
		}
	}
}

func TestNeedIsContentWithWhatIsThere(t *testing.T) { Need(t, "sh", "cat") }

func TestSocketIsShort(t *testing.T) {
	path := Socket(t)
	if len(path) > 60 {
		t.Errorf("%s has %d bytes", path, len(path))
	}
	if _, err := os.Stat(path); err == nil {
		t.Errorf("%s exists already", path)
	}
}

func TestSluiceTakesTheGivenBinary(t *testing.T) {
	t.Setenv("SLUICE_BIN", "/bin/sh")
	if got := Sluice(t); got != "/bin/sh" {
		t.Errorf("got %s", got)
	}
	t.Setenv("SLUICE_BIN", "/no/such/file")
	failure, _ := failing(t, func(t TB) { Sluice(t) })
	if !strings.Contains(failure, "make build") {
		t.Errorf("failure %q", failure)
	}
}

package lab

import (
	"os"
	"strings"
	"testing"
)

// TestServiceManagerGivesSocketsAndHears has a shell as its service.
func TestServiceManagerGivesSocketsAndHears(t *testing.T) {
	m := NewServiceManager(t)
	m.Listen("api", "unix", Socket(t))
	m.Listen("nbd", "tcp", "127.0.0.1:0")
	m.Setenv("WATCHDOG_USEC", "5000000")
	p := m.Start("sh", "-c", `test "$LISTEN_PID" = $$ && test "$WATCHDOG_PID" = $$ || exit 1
		test -S /proc/self/fd/3 && test -S /proc/self/fd/4 || exit 2
		echo "ready $LISTEN_FDS $LISTEN_FDNAMES $WATCHDOG_USEC"; exec sleep 60`)
	if got := p.Ready(); got != "2 api:nbd 5000000" {
		t.Errorf("%q", got)
	}
	m.Kill9()
	if got := m.Start("sh", "-c", `echo "ready $LISTEN_FDS"; exec sleep 60`).Ready(); got != "2" {
		t.Errorf("after a restart: %q", got)
	}
}

func TestServiceManagerTellsThatTheServiceEnded(t *testing.T) {
	failure, _ := failing(t, func(t TB) {
		m := NewServiceManager(t)
		m.Start("sh", "-c", "exit 3")
		m.Ready()
	})
	if !strings.Contains(failure, "ended without the notice READY=1 (exit status 3)") {
		t.Errorf("failure %q", failure)
	}
}

// TestServiceManagerClosesWhatItHolds looks for descriptors that are left.
func TestServiceManagerClosesWhatItHolds(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	once := func() {
		failing(t, func(t TB) {
			m := NewServiceManager(t)
			m.Listen("nbd", "tcp", "127.0.0.1:0")
			m.Start("sh", "-c", "exec sleep 60")
			t.Fatalf("end")
		})
	}
	once()
	before := count()
	once()
	if after := count(); after != before {
		t.Errorf("%d descriptors, then %d", before, after)
	}
}

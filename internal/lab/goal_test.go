package lab

import (
	"strings"
	"testing"
	"time"
)

func TestGoal(t *testing.T) {
	for _, c := range []struct {
		quiet string
		took  time.Duration
		fails bool
	}{
		{"", time.Second, false}, {"", time.Minute, false}, {"", time.Minute + 1, true},
		{"1", time.Second, false}, {"1", time.Second + 1, true},
	} {
		t.Setenv("SLUICE_QUIET", c.quiet)
		failure, _ := failing(t, func(t TB) { Goal(t, "lunch", c.took, time.Second, time.Minute) })
		if (failure != "") != c.fails || c.fails && !strings.HasPrefix(failure, "lunch took ") {
			t.Errorf("%+v: %q", c, failure)
		}
	}
}

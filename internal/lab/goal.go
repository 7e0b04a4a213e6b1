package lab

import (
	"os"
	"time"
)

// Quiet reports whether the machine is said to do nothing else (SLUICE_QUIET=1, as
// "make goals" does). Only there a test holds a time to what is promised; elsewhere
// it asks for what a machine under any load has to give.
func Quiet() bool { return os.Getenv("SLUICE_QUIET") == "1" }

// Goal fails the test when what took longer than the goal on a quiet machine, or
// longer than the bound on any. The bound has room for a machine that is busy, and
// none for a mistake.
func Goal(t TB, what string, took, goal, bound time.Duration) {
	t.Helper()
	limit := bound
	if Quiet() {
		limit = goal
	}
	if took > limit {
		t.Fatalf("%s took %v; %v are the limit, %v the goal", what, took, limit, goal)
	}
}

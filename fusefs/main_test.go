package fusefs

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asProcess are what the test binary does instead of testing when the variable
// asProcessVar names one: servers that tests kill.
var asProcess = map[string]func() error{}

const asProcessVar = "SLUICE_FUSEFS_PROCESS"

func TestMain(m *testing.M) {
	// Of the processes below: the race detector has them sleep for a second at their end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	if run := asProcess[os.Getenv(asProcessVar)]; run != nil {
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

package suite

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestStartTellsWhyAServerEnded(t *testing.T) {
	_, err := start(context.Background(), "x", []string{"sh", "-c", "echo no such image >&2; exit 3"}, accepts(filepath.Join(t.TempDir(), "s")))
	if err == nil || err.Error() != "x ended before it served: no such image" {
		t.Errorf("got %v", err)
	}
}

func TestStartGivesUpWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := start(ctx, "x", []string{"sleep", "60"}, accepts(filepath.Join(t.TempDir(), "s"))); err == nil {
		t.Error("no error")
	}
}

func TestRunClientTellsWhyItFailed(t *testing.T) {
	_, err := runClient(context.Background(), "sh", "-c", "echo out; echo cannot connect >&2; exit 1")
	if err == nil || err.Error() != "sh: exit status 1: cannot connect" {
		t.Errorf("got %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var b tail
	for i := range 1000 {
		_, _ = fmt.Fprintf(&b, "line %d\n", i)
	}
	if got := b.String(); len(got) > tailSize || !strings.HasSuffix(got, "line 998 line 999") {
		t.Errorf("got %q", got)
	}
}

//go:build interop

package fusefs

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A mount that nobody uses can be left at once: its readers are woken.
func TestDetachIdle(t *testing.T) {
	dir := t.TempDir()
	fs, err := Mount(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // nobody serves it any more
	ctx, done := context.WithTimeout(t.Context(), 5*time.Second)
	defer done()
	if err := fs.Detach(ctx); err != nil {
		t.Error(err)
	}
	if err := fs.Close(); err != nil {
		t.Error(err)
	}
}

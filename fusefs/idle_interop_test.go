//go:build interop

package fusefs

import (
	"bytes"
	"context"
	"log/slog"
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

// A file system that is closed as soon as it is mounted, again and again: no reader is
// left behind, and none complains.
func TestCloseAtOnce(t *testing.T) {
	var log bytes.Buffer
	for range 50 {
		fs, err := Mount(Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
		if n := fs.loop.alive.Load(); n != 0 {
			t.Fatalf("%d readers are left", n)
		}
	}
	if log.Len() > 0 {
		t.Error(log.String())
	}
}

//go:build interop

package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/block"
	"sluice/internal/lab"
)

// TestFullDisk fills the disk by adding. The change that does not fit is refused
// in words; what was there stays, removing works, and with room adding does.
func TestFullDisk(t *testing.T) {
	for kind, mount := range map[string]func(*testing.T, string){"tmpfs": mountTmpfs, "ext4": mountExt4} {
		t.Run(kind, func(t *testing.T) {
			top := t.TempDir()
			mount(t, top)
			t.Cleanup(func() {
				if err := syscall.Unmount(top, 0); err != nil {
					t.Error(err)
				}
			})
			fillDisk(t, top)
		})
	}
}

func mountTmpfs(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount (needs root): %v", err)
	}
}

func mountExt4(t *testing.T, dir string) {
	lab.Need(t, "mkfs.ext4", "losetup")
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 4<<20); err != nil {
		t.Fatal(err)
	}
	lab.Run(t, "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", file)
	if err := syscall.Mount(lab.Loop(t, file, 0), dir, "ext4", 0, ""); err != nil {
		t.Fatalf("mount (needs root): %v", err)
	}
}

func fillDisk(t *testing.T, top string) {
	dir := filepath.Join(top, "state")
	s := open1(t, dir)
	var want []Record
	add := func() error {
		r := record(t, s, fmt.Sprintf("vm%d", len(want)))
		r.Spec.Description = strings.Repeat("d", 8000)
		err := s.Put(r)
		if err == nil {
			want = append(want, r)
		}
		return err
	}
	var err error
	for err == nil && len(want) < 10000 {
		err = add()
	}
	if block.KindOf(err) != block.NoSpace || !strings.HasPrefix(err.Error(), "keep export vm") || !strings.HasSuffix(err.Error(), "no space left on device") {
		t.Errorf("after %d: %v", len(want), err)
	}
	check := func() {
		t.Helper()
		if diff := cmp.Diff(want, all(t, s)); diff != "" {
			t.Fatal(diff)
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open1(t, dir)
	check()
	for range 10 {
		if err := s.Delete(want[0].Spec.Name); err != nil {
			t.Fatalf("removing on a full disk: %v", err)
		}
		want = want[1:]
	}
	r := record(t, s, "small")
	if err := s.Put(r); err != nil {
		t.Errorf("adding where room was made: %v", err)
	}
	want = append(want, r)
	check()
	t.Logf("%d records of 8 KiB", len(want))
}

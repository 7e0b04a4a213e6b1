package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
)

// What the flags of copy do besides copying: each effect is there with the flag
// and missing without.

// noting exports RAM of 4 MiB and hands each call of it to note. It gives the URI.
func noting(t *testing.T, note func(blocktest.Op)) string {
	t.Helper()
	ram, err := mem.New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	noted := blocktest.InjectorFunc(func(op blocktest.Op) error {
		note(op)
		return nil
	})
	return "nbd+unix:///?socket=" + exporting(t, blocktest.NewFaultDevice(ram, noted, nil), "")
}

func TestCopyFlags(t *testing.T) {
	dir := t.TempDir()
	content := disk(t, dir, "disk.img")
	for flag, has := range map[string]func(...string) bool{
		"--destination-is-zero": func(flags ...string) bool { return leavesOut(t, dir, content, flags) },
		"--allocated":           func(flags ...string) bool { return allocates(t, dir, flags) },
		"--direct":              func(flags ...string) bool { return copiesDirectly(t, dir, flags) },
	} {
		if without, with := has(), has(flag); without || !with {
			t.Errorf("%s: without it %t, with it %t", flag, without, with)
		}
	}
}

// leavesOut reports whether a copy onto noise writes the data and nothing else.
func leavesOut(t *testing.T, dir string, content []byte, flags []string) bool {
	t.Helper()
	old := bytes.Repeat([]byte{0xEE}, len(content))
	if err := os.WriteFile(filepath.Join(dir, "old"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	var report copied
	out := must(t, dir, append([]string{"copy", "disk.img", "old", "--in-place", "--json"}, flags...)...)
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	copy(old[1<<20:], content[1<<20:2<<20])
	got, err := os.ReadFile(filepath.Join(dir, "old"))
	if err != nil {
		t.Fatal(err)
	}
	if report.Skipped == 0 { // nothing was left out: then all of the disk has to be there
		holds(t, dir, "old", content)
		return bytes.Equal(got, old)
	}
	return bytes.Equal(got, old) && report == copied{
		Source: "disk.img", Destination: "old", Size: 4 << 20, Data: 1 << 20, Skipped: 3 << 20, Seconds: report.Seconds,
	}
}

// allocates reports whether zeroes get space in a new file, and are asked to
// have it in an export.
func allocates(t *testing.T, dir string, flags []string) bool {
	t.Helper()
	must(t, dir, append([]string{"copy", "disk.img", "new", "--force"}, flags...)...)
	var info struct{ Allocated int64 }
	if err := json.Unmarshal([]byte(must(t, dir, "info", "new", "--json")), &info); err != nil {
		t.Fatal(err)
	}
	var zeroes, kept atomic.Int64
	uri := noting(t, func(op blocktest.Op) {
		if op.Kind == blocktest.OpWriteZeroes {
			zeroes.Add(1)
			if op.Flags&block.MayUnmap == 0 {
				kept.Add(1)
			}
		}
	})
	must(t, dir, append([]string{"copy", "disk.img", uri}, flags...)...)
	if n := kept.Load(); zeroes.Load() == 0 || n != 0 && n != zeroes.Load() || (n != 0) != (info.Allocated >= 4<<20) {
		t.Errorf("%v: %d of %d zeroes keep their space; the file has %d bytes", flags, n, zeroes.Load(), info.Allocated)
	}
	return kept.Load() != 0
}

// copiesDirectly reports whether a file is open with O_DIRECT while it is copied
// from, and while it is copied to.
func copiesDirectly(t *testing.T, dir string, flags []string) bool {
	t.Helper()
	var from, to atomic.Bool
	sink := noting(t, func(blocktest.Op) {
		if isDirect(filepath.Join(dir, "disk.img")) {
			from.Store(true)
		}
	})
	must(t, dir, append([]string{"copy", "disk.img", sink}, flags...)...)
	source := noting(t, func(blocktest.Op) {
		if isDirect(filepath.Join(dir, ".direct.")) {
			to.Store(true)
		}
	})
	must(t, dir, append([]string{"copy", source, "direct", "--force"}, flags...)...)
	if from.Load() != to.Load() {
		t.Errorf("%v: the source is direct: %t, the destination: %t", flags, from.Load(), to.Load())
	}
	return from.Load()
}

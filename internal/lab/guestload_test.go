package lab

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCycleTime(t *testing.T) {
	if got, err := cycleTime("cycle 12 103"); err != nil || got != 1030*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
	for line, want := range map[string]string{
		"cycle 7: write failed: dd: Input/output error": "cycle 7: write failed: dd: Input/output error",
		"cycle 7 x": `"cycle 7 x": strconv.Atoi: parsing "x": invalid syntax`,
	} {
		if _, err := cycleTime(line); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", line, err, want)
		}
	}
}

// A path is a raw file that QEMU opens past the page cache; anything else has to
// be told in full.
func TestBlockdev(t *testing.T) {
	direct := map[string]any{"direct": true}
	got, err := blockdev("/mnt/vol1", 0)
	want := map[string]any{
		"driver": "raw", "discard": "unmap", "cache": direct,
		"file": map[string]any{"driver": "file", "filename": "/mnt/vol1", "discard": "unmap", "cache": direct},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := blockdev("vol1", 0); err == nil || err.Error() != "neither nbd nor nbd+unix nor an absolute path nor JSON" {
		t.Errorf("a relative path: %v", err)
	}
}

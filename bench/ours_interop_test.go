//go:build interop

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sluice/internal/lab"
)

// Our FUSE files, and what the layers of a daemon's export cost.
func TestQuickRunOfOursOnFUSEAndOfTheDaemon(t *testing.T) {
	bench, tmp, out := build(t), t.TempDir(), t.TempDir()
	results, md := filepath.Join(out, "r.json"), filepath.Join(out, "r.md")
	const servers = "sluice-fuse,sluice-pass"
	cmd := command(bench, tmp, "--quick", "--seconds=0.1", "--size=32M", "--servers=sluice-daemon,"+servers,
		"--workloads="+fuseLoads+",rr64", "--sluice="+lab.Sluice(t), "--json="+results, "--markdown="+md)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want := append(product(fuseLoads, servers), product("sr1,rr1,rr16,rr64", "sluice-daemon")...)
	slices.Sort(want)
	if got := samplesOf(t, results); !slices.Equal(got, want) {
		t.Errorf("samples %q, want %q", got, want)
	}
	for _, section := range []string{"## FUSE files, opened with O_DIRECT\n", "## sluice-daemon beside sluice\n"} {
		if text, err := os.ReadFile(md); err != nil || !bytes.Contains(text, []byte(section)) {
			t.Errorf("no %q: %v", section, err)
		}
	}
	wantEmpty(t, tmp)
}

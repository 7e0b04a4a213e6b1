//go:build interop

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// QEMU's nfs driver answers every kind of client, and what the NFS server uses is told beside
// what the gateway uses.
func TestQuickRunOverNFS(t *testing.T) {
	bench, tmp, out := build(t), t.TempDir(), t.TempDir()
	results, md := filepath.Join(out, "r.json"), filepath.Join(out, "r.md")
	const loads = "sr1,sw1,rr1,rr16,rr64,rw16,rr64x4"
	cmd := command(bench, tmp, "--quick", "--seconds=0.3", "--size=32M", "--servers=qnbd-nfs,nbdkit-file",
		"--workloads="+loads, "--json="+results, "--markdown="+md)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got, want := samplesOf(t, results), product(loads, "qnbd-nfs,nbdkit-file"); !slices.Equal(got, want) {
		t.Errorf("samples %q, want %q", got, want)
	}
	for _, s := range readReport(t, results).Samples {
		if (s.BackendCPU > 0) != (s.Server == "qnbd-nfs") || s.BackendCPU > s.MachineCPU+0.1 {
			t.Errorf("the NFS server's use is off: %+v", s)
		}
	}
	for _, section := range []string{"## Image on an NFS server, one connection\n", "Server CPU / NFS server's CPU / whole machine: "} {
		if text, err := os.ReadFile(md); err != nil || !bytes.Contains(text, []byte(section)) {
			t.Errorf("no %q: %v", section, err)
		}
	}
	wantEmpty(t, tmp)
}

//go:build interop

package nfs

import (
	"os"
	"testing"

	"sluice/block"
	"sluice/block/blocktest"
	"sluice/internal/lab"
)

// ganesha runs the conformance suite on a file of nfs-ganesha. The server is killed
// and started again for each crash.
func ganesha(t *testing.T, version string, size int64) {
	s := lab.NFS(t, lab.NFSConfig{V3: version == "3"})
	opts := block.OpenOptions{Share: true}
	open := func(t testing.TB) block.Device {
		t.Helper()
		d, err := Open(background, s.URL("disk.img", "vers="+version, "timeout=20s"), opts)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	blocktest.Suite{
		Name: "ganesha " + version,
		Open: func(t testing.TB) block.Device {
			if err := os.WriteFile(s.Path("disk.img"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(s.Path("disk.img"), size); err != nil {
				t.Fatal(err)
			}
			return open(t)
		},
		Reopen:  open,
		OddSize: size%512 != 0,
	}.Run(t)
}

func TestGaneshaConforms(t *testing.T) {
	for _, version := range []string{"4.2", "4.1", "3"} {
		t.Run(version, func(t *testing.T) { ganesha(t, version, 1<<20) })
	}
	t.Run("odd size", func(t *testing.T) { ganesha(t, "4.2", 1<<20-300) })
}

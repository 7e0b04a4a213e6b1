//go:build interop

package fsxtest

import (
	"os"
	"path/filepath"
	"testing"

	"sluice/internal/lab"
)

// Somebody else's FUSE file passes too: no more is asked for than others do.
func TestFUSEFileOfQEMU(t *testing.T) {
	lab.Need(t, "qemu-storage-daemon")
	image, plain := fresh(t, 16<<20)
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := lab.Start(t, "qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,discard=unmap,filename="+image,
		"--export", "type=fuse,id=export,node-name=disk,writable=on,mountpoint="+path)
	daemon.Until("the file is there", func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() == 16<<20
	})
	Run(t, Config{Path: path, Plain: plain, Ops: 20_000, Seed: 2, Without: []Kind{Allocate}}) // which it has not
	if err := daemon.Stop(); err != nil {
		t.Error(err)
	}
}

package v3

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/nfstest"
	"sluice/backends/nfs/remote"
	"sluice/block"
)

// likeDevice is a remote.Kept that judges errors as backends/nfs does: what the server
// refused is no reason for others to wait.
type likeDevice struct{}

func (likeDevice) Verify(ctx context.Context, raw remote.RawWriter) error {
	_, err := raw.Commit(ctx)
	var status *nfsstat.Error
	if errors.As(err, &status) && block.KindOf(err) != block.Transient {
		return nil
	}
	return err
}

func (k likeDevice) Restore(ctx context.Context, raw remote.RawWriter) error {
	return k.Verify(ctx, raw)
}

// A file whose path leads nowhere any more does not keep the connection from the others.
func TestLostPathBlocksNobody(t *testing.T) {
	for name, change := range map[string]func(b *bench){
		"removed": func(b *bench) { b.server.Remove("/export/disk.img") },
		"loop":    func(b *bench) { b.server.Remove("/export/disk.img"); b.server.Symlink("disk.img", "/export/disk.img") },
		"kerberos only": func(b *bench) {
			b.client.roots[0].fh = b.staleHandle()
			b.answer("mount.MNT", func(result []byte) []byte {
				if len(result) <= 4 { // a refusal
					return result
				}
				return nfstest.Patch(-8, 390003)(nfstest.Patch(-4, 390004)(result))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = 2 * time.Second })
			b.server.Create("/export/other.img", make([]byte, 4096))
			other, err := b.client.Open(t.Context(), "/export/other.img", remote.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = other.Close() }()
			f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true, Kept: likeDevice{}})
			if name == "kerberos only" {
				fh := b.staleHandle()
				f.handle.Store(&fh)
			}
			change(b)
			b.server.Restart()
			if _, err := other.Read(t.Context(), make([]byte, 10), 0); err != nil {
				t.Errorf("the other file: %v", err)
			}
		})
	}
}

package file

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// aclOf gives a list in the kernel's form: the owner's and others' permissions,
// and those of one user.
func aclOf(owner, user, mask, other uint16, uid uint32) []byte {
	const none = ^uint32(0)
	list := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, owner, none}, {2, user, uid}, {4, 0, none}, {16, mask, none}, {32, other, none}} {
		list = binary.LittleEndian.AppendUint16(list, e.tag)
		list = binary.LittleEndian.AppendUint16(list, e.perm)
		list = binary.LittleEndian.AppendUint32(list, e.id)
	}
	return list
}

func getACL(t *testing.T, path string) []byte {
	t.Helper()
	p := make([]byte, 256)
	n, err := unix.Getxattr(path, attrACL, p)
	if err == unix.ENODATA {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

// heir makes a private image next to an older one and lets it inherit.
func heir(t *testing.T, dir, old string) (path string) {
	t.Helper()
	s, err := OpenStore(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	wantKind(t, s.Create(ctx, "new", block.CreateOptions{Size: 4096, Private: true}), block.OK, "create")
	path = filepath.Join(dir, "new")
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("a private image has mode %v, %v", st.Mode(), err)
	}
	wantKind(t, s.(*Store).Inherit(ctx, old, "new"), block.OK, "inherit")
	wantKind(t, s.(*Store).Inherit(ctx, old, "new"), block.OK, "inherit again")
	return path
}

func TestInherit(t *testing.T) {
	for name, dir := range map[string]string{"disk": t.TempDir(), "RAM": tmpfs(t)} {
		for _, mode := range []os.FileMode{0o600, 0o640, 0o666, 0o444 | os.ModeSetuid} {
			old, want := filepath.Join(dir, "old"), unix.Stat_t{}
			if err := os.WriteFile(old, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 { // others cannot give files away
				if err := os.Chown(old, 65534, 65533); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(old, mode); err != nil {
				t.Fatal(err)
			}
			var got unix.Stat_t
			path := heir(t, dir, "old")
			if err := unix.Stat(old, &want); err != nil {
				t.Fatal(err)
			}
			if err := unix.Stat(path, &got); err != nil {
				t.Fatal(err)
			}
			if got.Uid != want.Uid || got.Gid != want.Gid || got.Mode&0o7777 != want.Mode&0o777 {
				t.Errorf("%s: owner %d:%d, mode %o; the old image's were %d:%d, %o", name, got.Uid, got.Gid, got.Mode, want.Uid, want.Gid, want.Mode)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(old); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestInheritACL: a list comes along, and one that the folder gives to new files
// does not let in whom the old image kept out.
func TestInheritACL(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	list := aclOf(6, 4, 4, 0, 12345)
	if err := unix.Setxattr(old, attrACL, list, 0); err != nil {
		t.Fatal(err)
	}
	path := heir(t, dir, "old")
	if got := getACL(t, path); !bytes.Equal(got, list) {
		t.Errorf("the list is %x, want %x", got, list)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := unix.Removexattr(old, attrACL); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(old, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(dir, "system.posix_acl_default", aclOf(7, 7, 7, 7, 12345), 0); err != nil {
		t.Fatal(err)
	}
	path = heir(t, dir, "old")
	if got := getACL(t, path); got != nil {
		t.Errorf("the folder's list is left: %x", got)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestInheritFails(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	wantKind(t, s.Create(ctx, "a", block.CreateOptions{Size: 1}), block.OK, "create")
	wantKind(t, s.(*Store).Inherit(ctx, "none", "a"), block.NotFound, "from nothing")
	wantKind(t, s.(*Store).Inherit(ctx, "a", "none"), block.NotFound, "to nothing")
	wantKind(t, s.(*Store).Inherit(ctx, "../a", "a"), block.Invalid, "from elsewhere")
	wantKind(t, s.(*Store).Inherit(ctx, "a", ".."), block.Invalid, "to elsewhere")
}

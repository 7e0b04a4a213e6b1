package v4

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// owner is the name that the server knows this client by (RFC 8881, section 2.4), and a
// verifier that tells its incarnations apart.
//
// A process that takes the place of one that was killed has to have the same name:
// then the new verifier makes the server drop the old one's opens at once, instead of
// refusing the disks until the lease ends. Processes that run at the same time have to
// have different names. So the name has a number, the lowest whose lock file is free.
type owner struct {
	name     string
	verifier [8]byte

	key  string // what the name is made of, without the number
	next int
	lock *os.File // nil: the name is a random one
}

// maxOwners bounds the numbers: clients for one server and user at the same time.
const maxOwners = 256

func newOwner(server string, uid uint32) *owner {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", hostID(), server, uid))
	o := &owner{key: hex.EncodeToString(sum[:12])}
	_, _ = rand.Read(o.verifier[:]) // never fails
	o.another()
	return o
}

// another takes the next number that is free.
func (o *owner) another() {
	o.release()
	if dir, err := lockFolder(); err == nil {
		for ; o.next < maxOwners; o.next++ {
			f, err := lockFile(filepath.Join(dir, fmt.Sprintf("nfs-client-%s-%d.lock", o.key, o.next)))
			if err == nil {
				o.lock = f
				o.name = fmt.Sprintf("sluice %s %d", o.key, o.next)
				o.next++
				return
			}
		}
	}
	var random [12]byte
	_, _ = rand.Read(random[:])
	o.name = "sluice " + hex.EncodeToString(random[:])
}

// release gives the number back.
func (o *owner) release() {
	if o.lock != nil {
		_ = o.lock.Close()
		o.lock = nil
	}
}

// hostID is what tells hosts apart, never sent as it is.
func hostID() string {
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 1 {
		return string(id)
	}
	name, _ := os.Hostname()
	return name
}

// lockFolder is where lock files are: local, and the same for all processes of a user.
func lockFolder() (string, error) {
	dir := "/run/sluice"
	if os.Geteuid() != 0 {
		dir = os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			return "", os.ErrNotExist
		}
		dir = filepath.Join(dir, "sluice")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

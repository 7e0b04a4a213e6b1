package apiclient

import (
	"os"
	"path/filepath"

	"sluice/block"
)

// DefaultAddress is where a daemon of this user listens: unix:/run/sluice/api.sock
// for root, a socket in $XDG_RUNTIME_DIR/sluice for everybody else.
func DefaultAddress() (string, error) {
	return defaultAddress(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR"))
}

func defaultAddress(uid int, base string) (string, error) {
	switch {
	case uid == 0:
		return "unix:/run/sluice/api.sock", nil
	case !filepath.IsAbs(base):
		return "", block.Errorf(block.NotFound, "find the daemon", "", -1, "XDG_RUNTIME_DIR is not set; say where it is with --api unix:PATH")
	}
	return "unix:" + filepath.Join(base, "sluice/api.sock"), nil
}

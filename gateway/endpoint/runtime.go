package endpoint

import (
	"os"
	"path/filepath"

	"sluice/block"
)

// RuntimeFolder gives the folder for sockets, and makes it where it is missing:
// /run/sluice for root, $XDG_RUNTIME_DIR/sluice for everybody else.
func RuntimeFolder() (string, error) {
	dir, mode, err := runtimeFolder(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR"))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return "", block.Wrap(err, "make the runtime folder", dir, -1)
	}
	return dir, nil
}

func runtimeFolder(uid int, base string) (dir string, mode os.FileMode, err error) {
	switch {
	case uid == 0:
		return "/run/sluice", 0o755, nil
	case !filepath.IsAbs(base):
		return "", 0, block.Errorf(block.NotFound, "find the runtime folder", "", -1,
			"XDG_RUNTIME_DIR is not set; say where to listen: --nbd unix:PATH, for a daemon --api unix:PATH too")
	}
	return filepath.Join(base, "sluice"), 0o700, nil
}

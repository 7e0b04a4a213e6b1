package endpoint

import (
	"os"
	"path/filepath"

	"sluice/block"
)

// RuntimeFolder gives the folder for sockets, and makes it where it is missing:
// /run/sluice for root, $XDG_RUNTIME_DIR/sluice for everybody else.
func RuntimeFolder() (string, error) {
	dir, mode := "/run/sluice", os.FileMode(0o755)
	if os.Geteuid() != 0 {
		base := os.Getenv("XDG_RUNTIME_DIR")
		if !filepath.IsAbs(base) {
			return "", block.Errorf(block.NotFound, "find the runtime folder", "", -1,
				"XDG_RUNTIME_DIR is not set; say where to listen with --nbd unix:PATH")
		}
		dir, mode = filepath.Join(base, "sluice"), 0o700
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return "", block.Wrap(err, "make the runtime folder", dir, -1)
	}
	return dir, nil
}

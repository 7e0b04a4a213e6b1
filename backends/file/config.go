package file

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/backends/location"
	"sluice/block"
)

// Config is what a path or a file URL says.
type Config struct {
	Path   string          // as given; relative paths are possible
	Direct location.Switch // Unset: as OpenOptions.Direct says
	Lock   location.Switch // Unset: where the file system can
	Share  location.Switch // Unset: as OpenOptions.Share says
}

// ParseConfig reads a path (a string without scheme, taken as it is) or
// file:///PATH with parameters.
func ParseConfig(s string) (Config, error) {
	if location.Scheme(s) == "" {
		return Config{Path: s}, checkPath(s, s)
	}
	u, err := location.Parse(s)
	if err != nil {
		return Config{}, err
	}
	if u.User != nil || u.Host != "" && u.Host != "localhost" {
		return Config{}, block.Errorf(block.Invalid, "parse", location.Redact(s), -1,
			"a file URL names no host: file:///PATH with three slashes")
	}
	p := location.ParamsOf(u, s)
	cfg := Config{Path: u.Path, Direct: p.Switch("direct"), Lock: p.Switch("lock"), Share: p.Switch("share")}
	if err := p.Done(); err != nil {
		return Config{}, err
	}
	return cfg, checkPath(cfg.Path, s)
}

func checkPath(path, object string) error {
	if path == "" || strings.IndexByte(path, 0) >= 0 {
		return block.Errorf(block.Invalid, "parse", object, -1, "no path of a file")
	}
	return nil
}

// Locate gives the directory of the image at the URL as a Store, and the
// image's name in it. Where the path is a symbolic link (as those of mapped
// devices are), that is where the link leads. Images opened through the Store
// keep the URL's parameters.
func Locate(_ context.Context, url string) (block.Store, string, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, "", err
	}
	path := cfg.Path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			path = real
		}
	}
	return locate(cfg, path)
}

// LocateEntry is Locate for those who want the name itself, to remove it or to
// give it away: a symbolic link at the end of the path is not followed, so that
// removing the name removes the link and never what it leads to. Links on the
// way to it are followed.
func LocateEntry(_ context.Context, url string) (block.Store, string, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, "", err
	}
	if strings.HasSuffix(cfg.Path, "/") { // that would name what a link leads to
		return nil, "", block.Errorf(block.Invalid, "open", cfg.Path, -1, "not the name of an image")
	}
	return locate(cfg, cfg.Path)
}

// locate takes the path apart. The folder stays as it was written: where x is a
// symbolic link, x/.. is the folder above what it leads to.
func locate(cfg Config, path string) (block.Store, string, error) {
	dir, name := filepath.Split(strings.TrimRight(path, "/"))
	if name == "" || name == "." || name == ".." {
		return nil, "", block.Errorf(block.Invalid, "open", cfg.Path, -1, "not the name of an image")
	}
	if dir == "" {
		dir = "."
	}
	cfg.Path = dir
	s, err := openStore(cfg)
	if err != nil {
		return nil, "", err
	}
	return s, name, nil
}

// OpenStore opens the directory that the URL names.
func OpenStore(_ context.Context, url string) (block.Store, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	s, err := openStore(cfg)
	if err != nil {
		return nil, err
	}
	return s, nil
}

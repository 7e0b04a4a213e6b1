package main

import (
	"errors"
	"log/slog"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"sluice/backends/location"
	"sluice/block"
	"sluice/fusefs"
	"sluice/gateway"
	"sluice/gateway/spec"
)

// fuseFlags are the flags of serve about FUSE.
type fuseFlags struct {
	dir         string
	passthrough bool

	file string // its name, set by check
}

func (f *fuseFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "fuse", "", "mount at this empty folder, with the image as a file in it")
	flags.BoolVar(&f.passthrough, "fuse-passthrough", false, "let the kernel move the file's bytes by itself: for raw images in local files")
	if err := cmd.MarkFlagDirname("fuse"); err != nil {
		panic(err) // there is no such flag
	}
}

// check refuses what makes no sense. name is the export's.
func (f *fuseFlags) check(cmd *cobra.Command, name, url string) error {
	switch {
	case f.passthrough && f.dir == "":
		return usagef(cmd, "--fuse-passthrough needs --fuse DIR")
	case f.dir == "" && cmd.Flags().Changed("fuse"):
		return usagef(cmd, "--fuse: no folder is given")
	case f.dir == "":
		return nil
	}
	f.file = name
	if name == "" {
		f.file = fileName(url)
	}
	if err := spec.CheckName(f.file); err != nil {
		return usagef(cmd, "--name: %w", errors.Unwrap(err))
	}
	return nil
}

// mount mounts, where that is asked for, and says what the file is to look like.
func (f *fuseFlags) mount(cfg *gateway.SingleConfig, url, format string) error {
	if f.dir == "" {
		return nil
	}
	if f.passthrough && !cfg.Device.Info().Has(block.CapFileRange) {
		return block.Errorf(block.Unsupported, "serve", cfg.Object, -1, "--fuse-passthrough needs a raw image in a local file")
	}
	files, err := fusefs.Mount(fusefs.Config{Dir: f.dir, Logger: slog.Default()})
	if err != nil {
		return err
	}
	cfg.Files, cfg.File, cfg.Passthrough = files, f.file, f.passthrough
	cfg.Xattrs = map[string]string{
		"user.sluice.format": formatGiven(format).Of(url), "user.sluice.url": location.Redact(url),
	}
	return nil
}

// fileName is the image's own name: the last part of its path, "disk" where there
// is none.
func fileName(url string) string {
	if location.Scheme(url) != "" {
		_, url, _ = strings.Cut(url, "://")
		url, _, _ = strings.Cut(url, "?")
		if _, rest, ok := strings.Cut(url, "/"); ok {
			url = rest
		} else {
			url = ""
		}
	}
	if name := path.Base(url); name != "." && name != "/" {
		return name
	}
	return "disk"
}

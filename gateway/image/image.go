// Package image opens disk images: a backend by its URL, and a format over it.
// The gateway calls it for exports, the commands for everything else.
//
// The format is given, or follows from the image's name; it is never guessed
// from content. A name that is a symbolic link counts with all that it leads to:
// a link must not make a raw image of what is none.
//
// The package holds no state.
package image

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/backends"
	"sluice/backends/file"
	"sluice/backends/location"
	"sluice/block"
	"sluice/filters/align"
	"sluice/formats"
)

// Format says which format an image has.
type Format struct {
	Name string // "" lets the image's name decide
	From string // how the user says it, for advice in errors: "--format"
}

// Of gives the format's name for the image at url.
func (f Format) Of(url string) string {
	if f.Name != "" {
		return f.Name
	}
	name, _ := formatByName(url)
	return name
}

// Check refuses formats that are not there, before anything is touched. op is
// what was to be done, for the error, which is of kind Unsupported.
func (f Format) Check(op, url string) error {
	name, via := f.Name, ""
	if name == "" {
		name, via = formatByName(url)
	}
	if slices.Contains(formats.Names(), name) {
		return nil
	}
	leads := ""
	if path, ok := LocalPath(url); ok && via != "" && via != path {
		leads = "leads to " + via + ": "
	}
	return block.Errorf(block.Unsupported, op, location.Redact(url), -1, "%sformat %s is not supported (known: %s); %s raw takes the bytes as they are",
		leads, name, strings.Join(formats.Names(), ", "), f.From)
}

// formatByName gives the format that the name of an image tells, or else that of
// a place to which the name is a symbolic link; via is that place.
func formatByName(url string) (format, via string) {
	name := url
	if location.Scheme(url) != "" {
		name, _, _ = strings.Cut(url, "?")
	}
	if format = formats.FromName(name); format != formats.Raw {
		return format, ""
	}
	path, ok := LocalPath(url)
	if !ok {
		return format, ""
	}
	for _, via := range linksOf(path) {
		if format := formats.FromName(via); format != formats.Raw {
			return format, via
		}
	}
	return format, ""
}

// Open opens the image at url. The errors name it.
func Open(ctx context.Context, url string, f Format, opts block.OpenOptions) (block.Device, error) {
	if err := f.Check("open", url); err != nil {
		return nil, err
	}
	dev, err := backends.Open(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	img, err := formats.Open(ctx, dev, f.Of(url))
	if err != nil {
		_ = dev.Close()
		return nil, block.Wrap(err, "open", location.Redact(url), -1)
	}
	return img, nil
}

// OpenServed is Open for clients that may know nothing of block sizes.
func OpenServed(ctx context.Context, url string, f Format, opts block.OpenOptions) (block.Device, error) {
	dev, err := Open(ctx, url, f, opts)
	if err != nil {
		return nil, err
	}
	return align.New(dev), nil
}

// LocalPath gives the path that a URL stands for, where it is one of a local
// file.
func LocalPath(url string) (path string, ok bool) {
	if scheme := location.Scheme(url); scheme != "" && scheme != "file" {
		return "", false
	}
	cfg, err := file.ParseConfig(url)
	return cfg.Path, err == nil
}

// mostLinks is how many symbolic links the kernel follows.
const mostLinks = 40

// linksOf gives the path and each place that it leads to, where the last part of
// its name is a symbolic link. Paths are not cleaned: after a link, ".." is not
// what the text says.
func linksOf(path string) []string {
	paths := []string{path}
	for range mostLinks {
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			dir, _ := filepath.Split(path)
			to = dir + to
		}
		path = to
		paths = append(paths, path)
	}
	return paths
}

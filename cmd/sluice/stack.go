package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/backends"
	"sluice/backends/location"
	"sluice/block"
	"sluice/filters/align"
	"sluice/formats"
)

// formatFlag adds a flag that names a format.
func formatFlag(cmd *cobra.Command, v *string, name, of string) {
	cmd.Flags().Var((*formatName)(v), name, "format of "+of+": raw (default: by the name's extension, else raw)")
	complete(cmd, name, formats.Names()...)
}

// formatName is the value of a flag. A name that no format has is wrong usage;
// whether the format is supported, the command finds out.
type formatName string

func (f *formatName) String() string { return string(*f) }
func (f *formatName) Type() string   { return "string" }

func (f *formatName) Set(name string) error {
	if name != "" && !formats.Known(name) {
		return fmt.Errorf("there is no such format (known: %s)", strings.Join(formats.Names(), ", "))
	}
	*f = formatName(name)
	return nil
}

// formatOf gives the format asked for, or the one that the URL's name tells.
func formatOf(format, url string) string {
	if format != "" {
		return format
	}
	format, _ = formatByName(url)
	return format
}

// formatByName gives the format that the name of an image tells, or else that of
// a place to which the name is a symbolic link; via is that place. A link must
// not make a raw image of what is none.
func formatByName(url string) (format, via string) {
	name := url
	if location.Scheme(url) != "" {
		name, _, _ = strings.Cut(url, "?")
	}
	if format = formats.FromName(name); format != formats.Raw {
		return format, ""
	}
	path, ok := localPath(url)
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

// checkFormat refuses formats that are not there before anything is touched. The
// flag is the one by which the format is given.
func checkFormat(op, url, format, flag string) error {
	via := ""
	if format == "" {
		format, via = formatByName(url)
	}
	if slices.Contains(formats.Names(), format) {
		return nil
	}
	leads := ""
	if path, ok := localPath(url); ok && via != "" && via != path {
		leads = "leads to " + via + ": "
	}
	return block.Errorf(block.Unsupported, op, location.Redact(url), -1, "%sformat %s is not supported (known: %s); %s raw takes the bytes as they are",
		leads, format, strings.Join(formats.Names(), ", "), flag)
}

// openImage opens a backend and a format over it. The format is given by the flag
// --format.
func openImage(ctx context.Context, url, format string, opts block.OpenOptions) (block.Device, error) {
	return openImageAs(ctx, url, format, "--format", opts)
}

// openImageAs is openImage where another flag gives the format.
func openImageAs(ctx context.Context, url, format, flag string, opts block.OpenOptions) (block.Device, error) {
	if err := checkFormat("open", url, format, flag); err != nil {
		return nil, err
	}
	dev, err := backends.Open(ctx, url, opts)
	if err != nil {
		return nil, advise(interrupted(ctx, err, "open", url), block.Busy, "end the program that uses it")
	}
	image, err := formats.Open(ctx, dev, formatOf(format, url))
	if err != nil {
		_ = dev.Close()
		return nil, block.Wrap(err, "open", location.Redact(url), -1)
	}
	return image, nil
}

// openServed opens an image for clients that may know nothing of block sizes.
func openServed(ctx context.Context, url, format string, opts block.OpenOptions) (block.Device, error) {
	dev, err := openImage(ctx, url, format, opts)
	if err != nil {
		return nil, err
	}
	return align.New(dev), nil
}

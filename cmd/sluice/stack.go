package main

import (
	"context"
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
	cmd.Flags().StringVar(v, name, "", "format of "+of+": raw (default: by the name's extension, else raw)")
	complete(cmd, name, formats.Names()...)
}

// formatOf gives the format asked for, or the one that the URL's name tells.
func formatOf(format, url string) string {
	if format != "" {
		return format
	}
	if location.Scheme(url) != "" {
		url, _, _ = strings.Cut(url, "?")
	}
	return formats.FromName(url)
}

// checkFormat refuses formats that are not there before anything is touched.
func checkFormat(op, url, format string) error {
	for _, name := range formats.Names() {
		if name == format {
			return nil
		}
	}
	return block.Errorf(block.Unsupported, op, location.Redact(url), -1, "format %s is not supported (known: %s); --format raw takes the bytes as they are",
		format, strings.Join(formats.Names(), ", "))
}

// openImage opens a backend and a format over it.
func openImage(ctx context.Context, url, format string, opts block.OpenOptions) (block.Device, error) {
	format = formatOf(format, url)
	if err := checkFormat("open", url, format); err != nil {
		return nil, err
	}
	dev, err := backends.Open(ctx, url, opts)
	if err != nil {
		return nil, advise(err, block.Busy, "end the program that uses it")
	}
	image, err := formats.Open(ctx, dev, format)
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

package main

import (
	"context"

	"github.com/spf13/cobra"

	"sluice/backends"
	"sluice/backends/location"
	"sluice/block"
)

// formatFlag adds --format.
func formatFlag(cmd *cobra.Command, v *string, of string) {
	cmd.Flags().StringVar(v, "format", "", "format of "+of+": raw (default: by the name's extension, else raw)")
	complete(cmd, "format", "raw")
}

// formatOf gives the format asked for, or the one that the URL's name tells.
func formatOf(format, url string) string {
	if format != "" {
		return format
	}
	return "raw"
}

// openImage opens a backend and a format over it.
func openImage(ctx context.Context, url, format string, opts block.OpenOptions) (block.Device, error) {
	if f := formatOf(format, url); f != "raw" {
		return nil, block.Errorf(block.Unsupported, "open", location.Redact(url), -1, "unknown format %q (known: raw)", f)
	}
	dev, err := backends.Open(ctx, url, opts)
	return dev, advise(err, block.Busy, "end the program that uses it")
}

// openServed opens an image for clients of any kind.
func openServed(ctx context.Context, url, format string, opts block.OpenOptions) (block.Device, error) {
	return openImage(ctx, url, format, opts)
}

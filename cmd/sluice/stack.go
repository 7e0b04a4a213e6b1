package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice/block"
	"sluice/formats"
	"sluice/gateway/image"
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

// formatGiven is the value of the flag --format.
func formatGiven(name string) image.Format { return image.Format{Name: name, From: "--format"} }

// openImage opens an image whose format the flag --format gives.
func openImage(ctx context.Context, url, format string, opts block.OpenOptions) (block.Device, error) {
	return openImageAs(ctx, url, formatGiven(format), opts)
}

// openImageAs is openImage where another flag gives the format.
func openImageAs(ctx context.Context, url string, format image.Format, opts block.OpenOptions) (block.Device, error) {
	dev, err := image.Open(ctx, url, format, opts)
	return dev, openFailure(ctx, err, url)
}

// openServed opens an image for clients that may know nothing of block sizes.
func openServed(ctx context.Context, url, format string, opts block.OpenOptions) (block.Device, error) {
	dev, err := image.OpenServed(ctx, url, formatGiven(format), opts)
	return dev, openFailure(ctx, err, url)
}

// openFailure says what to do about an image that could not be opened.
func openFailure(ctx context.Context, err error, url string) error {
	return advise(interrupted(ctx, err, "open", url), block.Busy, "end the program that uses it")
}

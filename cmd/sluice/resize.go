package main

import (
	"strings"

	"github.com/spf13/cobra"

	"sluice/backends/location"
	"sluice/block"
	"sluice/block/size"
)

const resizeLong = `Change the size of an image.

SIZE is the new size, or with + in front what to add to it. New bytes read as
zeroes. What lies behind the new end is lost for good, so that an image is made
smaller only with --shrink. An image that is in use is refused.`

const resizeExample = `  sluice resize disk.img 20G
  sluice resize disk.img +512M
  sluice resize disk.img 5G --shrink`

type resizeFlags struct {
	*globals
	format string
	shrink bool
}

func newResize(g *globals) *cobra.Command {
	f := &resizeFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "resize URL SIZE",
		Short:   "Change the size of an image",
		Long:    resizeLong,
		Example: resizeExample,
		Args:    exactly("the image's URL", "the new size"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1]) },
	}
	formatFlag(cmd, &f.format, "format", "the image")
	cmd.Flags().BoolVar(&f.shrink, "shrink", false, "permit to make it smaller: what lies behind the new end is lost")
	return cmd
}

// resized is what resize prints as JSON.
type resized struct {
	URL     string `json:"url"`
	OldSize int64  `json:"old_size"`
	Size    int64  `json:"size"`
}

func (f *resizeFlags) run(cmd *cobra.Command, url, to string) (err error) {
	amount, err := size.Parse(strings.TrimPrefix(to, "+"))
	if err != nil {
		return usagef(cmd, "%w", err)
	}
	dev, err := openImage(cmd.Context(), url, f.format, block.OpenOptions{})
	if err != nil {
		return err
	}
	defer func() {
		if e := dev.Close(); err == nil {
			err = e
		}
	}()
	name, r := location.Redact(url), block.Resolve(dev)
	result := resized{URL: name, OldSize: r.Info.Size, Size: amount}
	if strings.HasPrefix(to, "+") {
		if result.Size += r.Info.Size; result.Size < 0 {
			return block.Errorf(block.Invalid, "resize", name, -1, "%s bytes more than %d are too many", to, r.Info.Size)
		}
	}
	switch {
	case r.Resizer == nil:
		return block.Errorf(block.Unsupported, "resize", name, -1, "it has a fixed size")
	case result.Size < result.OldSize && !f.shrink:
		return block.Errorf(block.Invalid, "resize", name, -1, "%d bytes are less than the %d it has; --shrink permits to lose the rest",
			result.Size, result.OldSize)
	}
	if err := r.Resizer.Resize(cmd.Context(), result.Size); err != nil {
		return block.Wrap(err, "resize", name, -1)
	}
	if err := dev.Flush(cmd.Context()); err != nil {
		return block.Wrap(err, "flush", name, -1)
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), result)
	}
	return nil
}

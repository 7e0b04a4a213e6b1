package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sluice/backends"
	"sluice/backends/location"
	"sluice/block"
	"sluice/block/size"
)

const infoLong = `Show the format, the sizes and the abilities of an image.

The image is opened for reading and without its lock, so that one that is in use
can be looked at; the capabilities are those of reading. With --chain the backing
images follow, the image itself first.`

const infoExample = `  sluice info disk.img
  sluice info --json nbd://storage1/db`

type infoFlags struct {
	*globals
	format string
	chain  bool
}

func newInfo(g *globals) *cobra.Command {
	f := &infoFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "info URL",
		Short:   "Show what an image is",
		Long:    infoLong,
		Example: infoExample,
		Args:    exactly("the image's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	formatFlag(cmd, &f.format, "format", "the image")
	cmd.Flags().BoolVar(&f.chain, "chain", false, "show the backing images too")
	return cmd
}

// imageInfo is what info prints as JSON.
type imageInfo struct {
	URL          string    `json:"url"`
	Format       string    `json:"format"`
	Size         int64     `json:"size"`
	Allocated    *int64    `json:"allocated"` // null where unknown
	Rotational   bool      `json:"rotational"`
	BlockSize    blockSize `json:"block_size"`
	Capabilities []string  `json:"capabilities"`
}

type blockSize struct {
	Minimum   int64 `json:"minimum"`
	Preferred int64 `json:"preferred"`
	Maximum   int64 `json:"maximum"` // 0: no limit
}

func (f *infoFlags) run(cmd *cobra.Command, url string) error {
	ctx := cmd.Context()
	dev, err := openImage(ctx, url, f.format, block.OpenOptions{ReadOnly: true, Unlocked: true})
	if err != nil {
		return err
	}
	info := dev.Info()
	if err := dev.Close(); err != nil {
		return err
	}
	image := imageInfo{
		URL: location.Redact(url), Format: formatGiven(f.format).Of(url), Size: info.Size, Allocated: allocated(ctx, url),
		Rotational: info.Rotational, BlockSize: blockSize{Minimum: info.Block.Min, Preferred: info.Block.Preferred, Maximum: info.Block.Max},
		Capabilities: append([]string{}, info.Caps.Names()...),
	}
	switch {
	case f.json && f.chain:
		return printJSON(cmd.OutOrStdout(), []imageInfo{image}) // raw has no backing image
	case f.json:
		return printJSON(cmd.OutOrStdout(), image)
	}
	return image.print(cmd.OutOrStdout())
}

// allocated asks the store how much space an image takes; nil where that is not
// known.
func allocated(ctx context.Context, url string) *int64 {
	store, name, err := backends.Locate(ctx, url)
	if err != nil {
		return nil
	}
	defer func() { _ = store.Close() }()
	entry, err := store.Stat(ctx, name)
	if err != nil || entry.Allocated < 0 {
		return nil
	}
	return &entry.Allocated
}

func (i imageInfo) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(t, name+":\t"+format+"\n", args...) // Flush tells of errors
	}
	line("url", "%s", printable(i.URL))
	line("format", "%s", i.Format)
	line("size", "%s (%d bytes)", size.Format(i.Size), i.Size)
	if i.Allocated != nil {
		line("allocated", "%s (%d bytes)", size.Format(*i.Allocated), *i.Allocated)
	} else {
		line("allocated", "unknown")
	}
	line("rotational", "%s", yesNo(i.Rotational))
	most := "no maximum"
	if i.BlockSize.Maximum > 0 {
		most = fmt.Sprintf("maximum %d", i.BlockSize.Maximum)
	}
	line("block size", "minimum %d, preferred %d, %s", i.BlockSize.Minimum, i.BlockSize.Preferred, most)
	line("capabilities", "%s", strings.Join(i.Capabilities, ", "))
	return t.Flush()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

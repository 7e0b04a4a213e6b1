package main

import (
	"github.com/spf13/cobra"

	"sluice/backends"
	"sluice/backends/location"
	"sluice/block"
	"sluice/block/size"
)

const createLong = `Create an image that reads as zeroes.

The image has its name when it is complete and durable, or not at all. A name
that is taken is refused. Space is claimed as --preallocation says:

  off       none: a sparse file
  metadata  the format's own tables; for raw the same as off
  falloc    space is reserved, without writing it
  full      zeroes are written`

const createExample = `  sluice create disk.img --size 10G
  sluice create /var/lib/images/db.img --size 100G --preallocation falloc`

type createFlags struct {
	*globals
	size, format, backing, backingFormat, preallocation string
}

func newCreate(g *globals) *cobra.Command {
	f := &createFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "create URL --size SIZE",
		Short:   "Create an image",
		Long:    createLong,
		Example: createExample,
		Args:    exactly("the image's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.size, "size", "", "size of the disk (required)")
	formatFlag(cmd, &f.format, "format", "the image")
	flags.StringVar(&f.backing, "backing", "", "image that this one is based on; raw images have none")
	formatFlag(cmd, &f.backingFormat, "backing-format", "the backing image")
	flags.StringVar(&f.preallocation, "preallocation", "off", "space to claim: off, metadata, falloc or full")
	complete(cmd, "preallocation", "off", "metadata", "falloc", "full")
	return cmd
}

// created is what create prints as JSON.
type created struct {
	URL    string `json:"url"`
	Format string `json:"format"`
	Size   int64  `json:"size"`
}

func (f *createFlags) run(cmd *cobra.Command, url string) error {
	if f.size == "" {
		return usagef(cmd, "create: --size is missing")
	}
	bytes, err := size.Parse(f.size)
	if err != nil {
		return usagef(cmd, "--size: %w", err)
	}
	mode := block.Preallocation(f.preallocation)
	switch mode {
	case block.PreallocateOff, block.PreallocateMetadata, block.PreallocateFalloc, block.PreallocateFull:
	default:
		return usagef(cmd, "--preallocation %s is none of off, metadata, falloc and full", mode)
	}
	format, name := formatGiven(f.format).Of(url), location.Redact(url)
	if err := formatGiven(f.format).Check("create", url); err != nil {
		return err
	}
	if err := checkNewName(url); err != nil {
		return err
	}
	if f.backing != "" || f.backingFormat != "" {
		return block.Errorf(block.Unsupported, "create", name, -1, "format %s has no backing images", format)
	}
	store, entry, err := backends.Locate(cmd.Context(), url)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	if err := store.Create(cmd.Context(), entry, block.CreateOptions{Size: bytes, Preallocate: mode}); err != nil {
		return takenBy(err, url)
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), created{URL: name, Format: format, Size: bytes})
	}
	return nil
}

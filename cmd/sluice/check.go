package main

import (
	"github.com/spf13/cobra"

	"sluice/backends/location"
	"sluice/block"
)

const checkLong = `Check the metadata of an image, and repair it with --repair.

A raw image has no metadata, so that there is nothing to check: that is an
error, as it is for qemu-img check.`

const checkExample = `  sluice check disk.qcow2
  sluice check disk.qcow2 --repair`

type checkFlags struct {
	*globals
	format string
	repair bool
}

func newCheck(g *globals) *cobra.Command {
	f := &checkFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "check URL",
		Short:   "Check an image's metadata",
		Long:    checkLong,
		Example: checkExample,
		Args:    exactly("the image's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	formatFlag(cmd, &f.format, "format", "the image")
	cmd.Flags().BoolVar(&f.repair, "repair", false, "repair what is wrong")
	return cmd
}

func (f *checkFlags) run(cmd *cobra.Command, url string) error {
	dev, err := openImage(cmd.Context(), url, f.format, block.OpenOptions{ReadOnly: !f.repair})
	if err != nil {
		return err
	}
	if err := dev.Close(); err != nil {
		return err
	}
	return block.Errorf(block.Unsupported, "check", location.Redact(url), -1,
		"format %s has no metadata that could be checked", formatGiven(f.format).Of(url))
}

package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"sluice/block"
)

// epoch dates the man pages, so that the same source gives the same pages.
var epoch = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write the man pages",
		Long:    "Write a man page for each command into a folder, which is made where it is missing.",
		Example: "  sluice man /usr/local/share/man/man1",
		Hidden:  true,
		Args:    exactly("the folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return block.Wrap(err, "make", args[0], -1)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "Sluice", Manual: "Sluice Manual", Date: &epoch}
			return block.Wrap(doc.GenManTree(root, header, args[0]), "write man pages to", args[0], -1)
		},
	}
}

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/backends"
	"sluice/block"
	"sluice/block/size"
)

const listLong = `List what a folder holds: its images, and whatever else is there.

Sizes are as a client sees them and as they are allocated.`

const listExample = `  sluice ls /var/lib/images
  sluice ls --json .`

func newList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "ls URL",
		Short:   "List the images in a folder",
		Long:    listLong,
		Example: listExample,
		Args:    exactly("the folder's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return list(cmd, g, args[0]) },
	}
}

// listed is what ls prints as JSON, in a list.
type listed struct {
	Name      string  `json:"name"`
	Kind      string  `json:"kind"`
	Size      int64   `json:"size"`
	Allocated *int64  `json:"allocated"` // null where unknown
	Modified  *string `json:"modified"`  // RFC 3339, UTC; null where unknown
}

func list(cmd *cobra.Command, g *globals, url string) error {
	store, err := backends.OpenStore(cmd.Context(), url)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	entries, err := store.List(cmd.Context(), "")
	if err != nil {
		return interrupted(cmd.Context(), err, "list", url)
	}
	lines := make([]listed, 0, len(entries))
	for _, e := range entries {
		lines = append(lines, listedOf(e))
	}
	if g.json {
		return printJSON(cmd.OutOrStdout(), lines)
	}
	return printList(cmd.OutOrStdout(), lines)
}

func listedOf(e block.Entry) listed {
	l := listed{Name: e.Name, Kind: e.Kind, Size: e.Size}
	if e.Allocated >= 0 {
		l.Allocated = &e.Allocated
	}
	if !e.ModTime.IsZero() {
		text := e.ModTime.UTC().Format(time.RFC3339)
		l.Modified = &text
	}
	return l
}

func printList(w io.Writer, lines []listed) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "KIND\tSIZE\tALLOCATED\tMODIFIED\tNAME") // Flush tells of errors
	for _, l := range lines {
		allocated, modified := "-", "-"
		if l.Allocated != nil {
			allocated = size.Format(*l.Allocated)
		}
		if l.Modified != nil {
			modified = *l.Modified
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.Kind, size.Format(l.Size), allocated, modified, printable(l.Name))
	}
	return t.Flush()
}

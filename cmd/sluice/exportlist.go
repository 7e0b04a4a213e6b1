package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sluice/block/size"
	"sluice/gateway"
	"sluice/gateway/apiclient"
)

const exportListLong = `List the exports of a running daemon: what each is doing, its size, how many NBD
clients it has, how often its FUSE file is open, its name and its image.`

const exportListExample = `  sluice export list
  sluice export list --json`

func newExportList(f *apiFlags) *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "List the exports",
		Long:              exportListLong,
		Example:           exportListExample,
		Args:              exactly(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(cmd, func(c *apiclient.Client) error {
				all, err := c.List(cmd.Context())
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), all)
				}
				return printExports(cmd.OutOrStdout(), all)
			})
		},
	}
}

func printExports(w io.Writer, all []gateway.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "STATE\tSIZE\tCLIENTS\tOPEN\tNAME\tURL") // Flush tells of errors
	for _, st := range all {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", st.State, size.Format(st.Size), st.Connections, st.OpenFiles,
			printable(st.Spec.Name), printable(st.Spec.URL))
	}
	return t.Flush()
}

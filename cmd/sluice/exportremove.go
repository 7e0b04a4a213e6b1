package main

import (
	"github.com/spf13/cobra"

	"sluice/block"
	"sluice/gateway/apiclient"
)

const exportRemoveLong = `Remove exports from a running daemon. Their images stay.

An export that clients use is refused, unless --force ends them: requests that
have arrived are finished, then the clients are hung up on. After one that cannot be
removed, the others are removed all the same.`

const exportRemoveExample = `  sluice export remove disk
  sluice export remove disk1 disk2 --force`

type exportRemoveFlags struct {
	*apiFlags
	force bool
}

func newExportRemove(api *apiFlags) *cobra.Command {
	f := &exportRemoveFlags{apiFlags: api}
	cmd := &cobra.Command{
		Use:     "remove NAME...",
		Short:   "Remove exports; their images stay",
		Long:    exportRemoveLong,
		Example: exportRemoveExample,
		Args:    atLeastOne("the export's name"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return api.allNames(cmd)
		},
	}
	cmd.Flags().BoolVar(&f.force, "force", false, "remove exports that clients use")
	return cmd
}

// run removes all it can and reports what failed.
func (f *exportRemoveFlags) run(cmd *cobra.Command, names []string) error {
	return f.ask(cmd, func(c *apiclient.Client) error {
		result := removed{Removed: []string{}}
		failures := each(cmd.Context(), names, func(name string) error {
			err := c.Remove(cmd.Context(), name, f.force)
			switch {
			case err != nil && f.force:
				return err
			case err != nil:
				return advise(err, block.Busy, "--force ends its clients, except with passthrough")
			}
			result.Removed = append(result.Removed, name)
			return nil
		})
		return f.tell(cmd.OutOrStdout(), result, failures)
	}, names...)
}

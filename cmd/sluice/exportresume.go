package main

import (
	"github.com/spf13/cobra"

	"sluice/gateway/apiclient"
)

const exportResumeLong = `Let an export go on whose storage failed.

An export that is held tries its storage again at once, and its requests go on
where that works. One that is frozen (--on-error read-only) takes changes again.`

const exportResumeExample = `  sluice export resume disk`

func newExportResume(f *apiFlags) *cobra.Command {
	return &cobra.Command{
		Use:               "resume NAME",
		Short:             "Let an export go on whose storage failed",
		Long:              exportResumeLong,
		Example:           exportResumeExample,
		Args:              exactly("the export's name"),
		ValidArgsFunction: f.exportNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.ask(cmd, func(c *apiclient.Client) error {
				st, err := c.Resume(cmd.Context(), args[0])
				if err != nil || !f.json {
					return err
				}
				return printJSON(cmd.OutOrStdout(), st)
			}, args[0])
		},
	}
}

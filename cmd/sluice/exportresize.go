package main

import (
	"math"
	"strings"

	"github.com/spf13/cobra"

	"sluice/block"
	"sluice/block/size"
	"sluice/gateway/apiclient"
)

const exportResizeLong = `Change the size of an export, and of its image, while it is served.

SIZE is the new size, or with + in front what to add to it. NBD clients see the new
size when they connect again, users of the FUSE file at once. What lies behind the
new end is lost for good, so that an export is made smaller only with --shrink.`

const exportResizeExample = `  sluice export resize disk 20G
  sluice export resize disk +512M`

type exportResizeFlags struct {
	*apiFlags
	shrink bool
}

func newExportResize(api *apiFlags) *cobra.Command {
	f := &exportResizeFlags{apiFlags: api}
	cmd := &cobra.Command{
		Use:               "resize NAME SIZE",
		Short:             "Change the size of an export",
		Long:              exportResizeLong,
		Example:           exportResizeExample,
		Args:              exactly("the export's name", "the new size"),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1]) },
		ValidArgsFunction: api.exportNames,
	}
	cmd.Flags().BoolVar(&f.shrink, "shrink", false, "permit to make it smaller: what lies behind the new end is lost")
	return cmd
}

func (f *exportResizeFlags) run(cmd *cobra.Command, name, to string) error {
	amount, err := size.Parse(strings.TrimPrefix(to, "+"))
	if err != nil {
		return usagef(cmd, "%w", err)
	}
	return f.ask(cmd, func(c *apiclient.Client) error {
		if strings.HasPrefix(to, "+") {
			st, err := c.Show(cmd.Context(), name)
			if err != nil {
				return err
			}
			if amount > math.MaxInt64-st.Size {
				return block.Errorf(block.Invalid, "resize export", name, -1, "%s bytes more than %d are too many", to, st.Size)
			}
			amount += st.Size
		}
		st, err := c.Resize(cmd.Context(), name, amount, f.shrink)
		if err != nil || !f.json {
			return err
		}
		return printJSON(cmd.OutOrStdout(), st)
	}, name)
}

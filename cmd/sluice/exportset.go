package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/apiclient"
	"sluice/gateway/spec"
)

const exportSetLong = `Change settings of an export while it is served.

What no flag is given for stays as it is. Faults are replaced as a whole by those
that are given, and taken away by --no-faults.

The change survives a restart of the daemon, unless the export is in the daemon's
configuration: then it lasts until that is read again, at a reload or a restart, and
a line says so.`

const exportSetExample = `  sluice export set disk --read-iops 500 --write-iops 200 --burst 1s
  sluice export set disk --read-bytes 0
  sluice export set disk --on-error error
  sluice export set disk --no-faults`

type exportSetFlags struct {
	*apiFlags
	settingsFlags
	noFaults bool
}

func newExportSet(api *apiFlags) *cobra.Command {
	f := &exportSetFlags{apiFlags: api}
	cmd := &cobra.Command{
		Use:               "set NAME",
		Short:             "Change settings of an export",
		Long:              exportSetLong,
		Example:           exportSetExample,
		Args:              exactly("the export's name"),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
		ValidArgsFunction: api.exportNames,
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.noFaults, "no-faults", false, "take all fault rules away")
	return cmd
}

func (f *exportSetFlags) run(cmd *cobra.Command, name string) error {
	changes := f.changes(cmd)
	if f.noFaults {
		if len(f.faults) > 0 {
			return usagef(cmd, "--no-faults goes with no --fault")
		}
		changes["faults"] = nil
	}
	if len(changes) == 0 {
		return usagef(cmd, "no setting is given")
	}
	if err := f.check(cmd, name); err != nil {
		return usagef(cmd, "%w", inFlags(cmd, err))
	}
	return f.ask(cmd, func(c *apiclient.Client) error {
		st, err := c.Change(cmd.Context(), name, changes)
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), st)
		}
		if st.Source == gateway.FromConfig {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is in the daemon's configuration: the change lasts until that is read again; make it there too to keep it\n", printable(name))
		}
		return err
	}, name)
}

// check refuses what no daemon would take: the settings are looked at as those of
// an export that has no others.
func (f *exportSetFlags) check(cmd *cobra.Command, name string) error {
	s, err := f.settings(cmd)
	if err != nil {
		return err
	}
	whole := spec.Spec{Name: name, URL: "unchanged", Settings: s}
	return whole.Check()
}

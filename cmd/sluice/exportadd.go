package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/apiclient"
	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
)

const exportAddLong = `Add an export to a running daemon.

NAME is the export's name for NBD clients and its file's name under the daemon's
FUSE mount. URL names the image; a relative path is one of the folder in which the
command is run. When the command ends, the export is served, and will be after a
restart of the daemon. For each place where it can be found a line "ready URI" or
"ready fuse PATH" is printed.`

const exportAddExample = `  sluice export add disk disk.img
  sluice export add db /dev/vg/db --direct --nbd unix:/run/db.sock --read-only
  sluice export add slow disk.img --read-iops 500 --write-bytes 20M --burst 1s
  sluice export add lab disk.img --on-error hold --on-error-limit 5m --no-fuse`

type exportAddFlags struct {
	*apiFlags
	settingsFlags
	spec spec.Spec
}

func newExportAdd(api *apiFlags) *cobra.Command {
	f := &exportAddFlags{apiFlags: api}
	s := &f.spec
	cmd := &cobra.Command{
		Use:     "add NAME URL",
		Short:   "Add an export",
		Long:    exportAddLong,
		Example: exportAddExample,
		Args:    exactly("the export's name", "the image's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1]) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveDefault // the shell goes on with file names
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	formatFlag(cmd, &s.Format, "format", "the image")
	flags := cmd.Flags()
	flags.StringVar(&s.Description, "description", "", "description of the export, shown to clients that list exports")
	flags.BoolVar(&s.ReadOnly, "read-only", false, "refuse changes")
	flags.BoolVar(&s.Direct, "direct", false, "bypass the page cache (O_DIRECT)")
	flags.BoolVar(&s.Share, "share", false, "permit other writers at the same time, as QEMU's share-rw does")
	flags.BoolVar(&s.Unlocked, "unlocked", false, "take no image lock: nothing keeps a second writer away")
	flags.StringArrayVar(&s.NBD, "nbd", nil, "listen at an address of the export's own too, unix:PATH or tcp:HOST:PORT (may be repeated)")
	flags.IntVar(&s.MaxConnections, "max-connections", 0, "NBD clients served at once; 0: only the daemon's bound")
	flags.StringArrayVar(&s.Allow, "allow", nil, "let in only clients with this common name in their certificate (may be repeated)")
	flags.BoolVar(&s.NoFUSE, "no-fuse", false, "leave the export out of the FUSE mount")
	flags.BoolVar(&s.Passthrough, "passthrough", false, "let the kernel move the bytes of the FUSE file: they are not throttled, held or counted")
	f.add(cmd)
	return cmd
}

func (f *exportAddFlags) run(cmd *cobra.Command, name, url string) error {
	if err := f.fill(cmd, name, url); err != nil {
		return err
	}
	return f.ask(cmd, func(c *apiclient.Client) error {
		st, err := c.Add(cmd.Context(), f.spec)
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), st)
		}
		return printReady(cmd.OutOrStdout(), st)
	})
}

// fill completes what the flags have read, and refuses what no daemon would take.
func (f *exportAddFlags) fill(cmd *cobra.Command, name, url string) (err error) {
	s := &f.spec
	s.Name = name
	if s.URL, err = absolute(url); err != nil {
		return err
	}
	for i, at := range s.NBD {
		a, err := endpoint.Parse(at)
		if err != nil {
			return usagef(cmd, "--nbd: %w", err)
		}
		s.NBD[i] = a.String()
	}
	if s.Settings, err = f.settings(cmd); err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return usagef(cmd, "%w", inFlags(cmd, err))
	}
	return nil
}

// printReady tells where an export can be found.
func printReady(w io.Writer, st gateway.Status) error {
	for _, uri := range st.URIs {
		if _, err := fmt.Fprintln(w, "ready", printable(uri)); err != nil {
			return err
		}
	}
	if st.File == "" {
		return nil
	}
	_, err := fmt.Fprintln(w, "ready fuse", printable(st.File))
	return err
}

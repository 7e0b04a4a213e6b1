package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/block/size"
	"sluice/gateway"
	"sluice/gateway/apiclient"
	"sluice/gateway/spec"
)

const exportShowLong = `Show all there is to know of an export: what it was asked to be, what it is doing
and since when, and where it can be found.`

const exportShowExample = `  sluice export show disk
  sluice export show disk --json`

func newExportShow(f *apiFlags) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show an export",
		Long:              exportShowLong,
		Example:           exportShowExample,
		Args:              exactly("the export's name"),
		ValidArgsFunction: f.exportNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.ask(cmd, func(c *apiclient.Client) error {
				st, err := c.Show(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), st)
				}
				return printExport(cmd.OutOrStdout(), st)
			}, args[0])
		},
	}
}

func printExport(w io.Writer, st gateway.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(t, name+":\t"+format+"\n", args...) // Flush tells of errors
	}
	given := func(name, text string) {
		if text != "" {
			line(name, "%s", printable(text))
		}
	}
	line("name", "%s", printable(st.Spec.Name))
	line("url", "%s", printable(st.Spec.URL))
	given("format", st.Spec.Format)
	given("description", st.Spec.Description)
	line("state", "%s since %s", st.State, st.Since.UTC().Format(time.RFC3339))
	given("error", st.Error)
	line("source", "%s", st.Source)
	line("size", "%s (%d bytes)", size.Format(st.Size), st.Size)
	line("read-only", "%s", yesNo(st.ReadOnly))
	line("capabilities", "%s", strings.Join(st.Capabilities, ", "))
	for _, uri := range st.URIs {
		line("nbd", "%s", printable(uri))
	}
	given("fuse", st.File)
	if st.FileError != "" {
		line("fuse", "none: %s", printable(st.FileError))
	}
	if st.File != "" {
		line("passthrough", "%s", yesNo(st.Passthrough))
	}
	line("clients", "%d", st.Connections)
	line("open files", "%d", st.OpenFiles)
	line("waiting requests", "%d", st.HeldNow)
	given("let in", strings.Join(st.Spec.Allow, ", "))
	printSettings(line, st.Spec.Settings)
	return t.Flush()
}

// printSettings shows what an export does with failures and with too much work.
func printSettings(line func(name, format string, args ...any), s spec.Settings) {
	policy := s.OnError.Policy
	if policy == "" {
		policy = "hold"
	}
	if s.OnError.Limit > 0 {
		policy += " for " + s.OnError.Limit.String()
	}
	if s.OnError.NoSpace {
		policy += ", also for want of space"
	}
	line("on error", "%s", policy)
	for _, b := range []struct {
		name, unit string
		value      int64
		bytes      bool
	}{
		{"read bound", "reads/s", s.Throttle.ReadIOPS, false},
		{"read bound", "/s", int64(s.Throttle.ReadBytes), true},
		{"write bound", "writes/s", s.Throttle.WriteIOPS, false},
		{"write bound", "/s", int64(s.Throttle.WriteBytes), true},
	} {
		switch {
		case b.value == 0:
		case b.bytes:
			line(b.name, "%s%s", size.Format(b.value), b.unit)
		default:
			line(b.name, "%d %s", b.value, b.unit)
		}
	}
	if s.Throttle.Burst > 0 {
		line("burst", "%s", s.Throttle.Burst)
	}
	if s.SlowRequest > 0 {
		line("slow request", "%s", s.SlowRequest)
	}
	for _, rule := range s.Faults {
		line("fault", "%s", printable(rule))
	}
}

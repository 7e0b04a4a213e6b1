package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sluice/block/size"
	"sluice/gateway"
	"sluice/gateway/apiclient"
)

const exportStatsLong = `Count the requests of an export, or of all, since it was opened.

For each operation that there was, and the way it came (NBD or FUSE): how many
requests were answered, their bytes, how many failed, the mean of the time that they
took, the times that half and 99 of 100 of them did not exceed, and how many are
under way right now.`

const exportStatsExample = `  sluice export stats
  sluice export stats disk --json`

func newExportStats(f *apiFlags) *cobra.Command {
	return &cobra.Command{
		Use:               "stats [NAME]",
		Short:             "Count the requests of exports",
		Long:              exportStatsLong,
		Example:           exportStatsExample,
		ValidArgsFunction: f.exportNames,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactly("the export's name")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return f.ask(cmd, func(c *apiclient.Client) error {
				all, err := c.Stats(cmd.Context(), name)
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), all)
				}
				return printStats(cmd.OutOrStdout(), all)
			}, args...)
		},
	}
}

func printStats(w io.Writer, all []gateway.Stats) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "VIA\tOP\tREQUESTS\tBYTES\tERRORS\tMEAN\tP50\tP99\tNOW\tNAME") // Flush tells of errors
	for _, s := range all {
		name, idle := printable(s.Name), true
		for _, op := range s.Ops {
			if op.Requests == 0 && op.InFlight == 0 {
				continue
			}
			idle = false
			_, _ = fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\t%d\t%s\n", op.Protocol, op.Op, op.Requests, size.Format(int64(op.Bytes)), op.Errors,
				latency(op.Seconds/float64(max(op.Requests, 1))), latency(op.P50), latency(op.P99), op.InFlight, name)
		}
		if idle {
			_, _ = fmt.Fprintf(t, "-\t-\t0\t0\t0\t-\t-\t-\t0\t%s\n", name)
		}
	}
	return t.Flush()
}

// latency writes seconds with about three digits: "42.0us", "1.25ms", "310ms",
// "3.20s".
func latency(seconds float64) string {
	v, unit := seconds, "s"
	switch {
	case seconds <= 0:
		return "-"
	case seconds < 1e-3:
		v, unit = seconds*1e6, "us"
	case seconds < 1:
		v, unit = seconds*1e3, "ms"
	}
	digits := 2
	for limit := 10.0; v >= limit && digits > 0; limit *= 10 {
		digits--
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + unit
}

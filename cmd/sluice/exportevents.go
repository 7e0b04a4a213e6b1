package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/apiclient"
)

const exportEventsLong = `Follow what happens to exports, until the command is interrupted or the daemon
ends.

Each event is a line: its number, the time, what happened, the export, and its
state; with --json, an object. The events that the daemon still knows come first,
those behind a number with --after. "lost" says that events are missing, since the
reader was too slow or came too late.`

const exportEventsExample = `  sluice export events
  sluice export events --after 1200 --json`

type exportEventsFlags struct {
	*apiFlags
	after uint64
}

func newExportEvents(api *apiFlags) *cobra.Command {
	f := &exportEventsFlags{apiFlags: api}
	cmd := &cobra.Command{
		Use:               "events",
		Short:             "Follow what happens to exports",
		Long:              exportEventsLong,
		Example:           exportEventsExample,
		Args:              exactly(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().Uint64Var(&f.after, "after", 0, "begin behind the event with this number")
	return cmd
}

func (f *exportEventsFlags) run(cmd *cobra.Command) error {
	return f.ask(cmd, func(c *apiclient.Client) error {
		for e, err := range c.Events(cmd.Context(), f.after) {
			if err == nil {
				err = f.print(cmd.OutOrStdout(), e)
			}
			switch {
			case cmd.Context().Err() != nil:
				return nil // an interruption is how it is meant to end
			case err != nil:
				return err
			}
		}
		return nil
	})
}

func (f *exportEventsFlags) print(w io.Writer, e gateway.Event) error {
	if f.json {
		return json.NewEncoder(w).Encode(e) // one line each
	}
	text := fmt.Sprintf("%d %s %s", e.Seq, e.Time.UTC().Format(time.RFC3339), e.Kind)
	if e.Export != "" {
		text += " " + printable(e.Export)
	}
	if e.Status != nil && e.Kind != gateway.ExportRemoved {
		text += " " + string(e.Status.State)
		if e.Status.Error != "" {
			text += ": " + escaped(e.Status.Error)
		}
	}
	if e.Detail != "" {
		text += " (" + escaped(e.Detail) + ")"
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

package main

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sluice/block/size"
	"sluice/gateway/spec"
)

// settingsFlags are the flags of what can be changed while an export is served.
type settingsFlags struct {
	onError               string
	limit                 time.Duration
	noSpace               bool
	readIOPS, writeIOPS   int64
	readBytes, writeBytes sizeFlag
	burst, slow           time.Duration
	faults                []string
}

func (f *settingsFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.onError, "on-error", "", "when the storage fails: hold (requests wait), error (they fail) or read-only (and changes are refused from then on); default hold, but error for serve of a local file")
	flags.DurationVar(&f.limit, "on-error-limit", 0, "how long hold lets requests wait; 0 for ever")
	flags.BoolVar(&f.noSpace, "on-error-no-space", false, "a full medium is such a failure too")
	flags.Int64Var(&f.readIOPS, "read-iops", 0, "reads a second at most; 0 without bound")
	flags.Int64Var(&f.writeIOPS, "write-iops", 0, "writes a second at most; 0 without bound")
	flags.Var(&f.readBytes, "read-bytes", "bytes read a second at most (10M); 0 without bound")
	flags.Var(&f.writeBytes, "write-bytes", "bytes written a second at most (10M); 0 without bound")
	flags.DurationVar(&f.burst, "burst", 0, "how much time's worth of requests may be saved up; 0 is 100ms")
	flags.DurationVar(&f.slow, "slow-request", 0, "log requests that take longer; 0 is the daemon's default, or never")
	flags.StringArrayVar(&f.faults, "fault", nil, "rule that makes the export fail, for rehearsals; a daemon has to allow it (may be repeated)")
	complete(cmd, "on-error", "hold", "error", "read-only")
}

// sizeFlag is the value of a flag that takes a number of bytes.
type sizeFlag spec.Size

func (f *sizeFlag) String() string { return strconv.FormatInt(int64(*f), 10) }
func (f *sizeFlag) Type() string   { return "size" }

func (f *sizeFlag) Set(text string) error {
	n, err := size.Parse(text)
	*f = sizeFlag(n)
	return err
}

// changes gives the settings whose flags were given, as a merge patch.
func (f *settingsFlags) changes(cmd *cobra.Command) map[string]any {
	all := map[string]any{}
	set := func(flag, section, member string, v any) {
		if !cmd.Flags().Changed(flag) {
			return
		}
		into := all
		if section != "" {
			if all[section] == nil {
				all[section] = map[string]any{}
			}
			into = all[section].(map[string]any)
		}
		into[member] = v
	}
	set("on-error", "on_error", "policy", f.onError)
	set("on-error-limit", "on_error", "limit", spec.Duration(f.limit))
	set("on-error-no-space", "on_error", "no_space", f.noSpace)
	set("read-iops", "throttle", "read_iops", f.readIOPS)
	set("write-iops", "throttle", "write_iops", f.writeIOPS)
	set("read-bytes", "throttle", "read_bytes", spec.Size(f.readBytes))
	set("write-bytes", "throttle", "write_bytes", spec.Size(f.writeBytes))
	set("burst", "throttle", "burst", spec.Duration(f.burst))
	set("slow-request", "", "slow_request", spec.Duration(f.slow))
	set("fault", "", "faults", f.faults)
	return all
}

// settings gives them as an export has them that has no others.
func (f *settingsFlags) settings(cmd *cobra.Command) (s spec.Settings, err error) {
	text, err := json.Marshal(f.changes(cmd))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/gateway/spec"
)

// flagTakes says what flags of a type take.
var flagTakes = map[string]string{
	"duration": "a time such as 500ms, 30s or 5m",
	"int":      "a whole number",
	"int64":    "a whole number",
	"uint64":   "a whole number, 0 or more",
	"bool":     "true or false",
}

// flagError says what is wrong with the value of a flag, which the library tells in
// the words of the parser.
func flagError(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	flag := bad.GetFlag()
	takes, ok := flagTakes[flag.Value.Type()]
	if !ok {
		return fmt.Errorf("--%s: %w", flag.Name, errors.Unwrap(bad))
	}
	return fmt.Errorf("--%s: %q is not %s", flag.Name, bad.GetValue(), takes)
}

// flagOf are the flags for the fields of a Spec, as a configuration names them.
var flagOf = map[string]string{
	"passthrough": "passthrough", "max_connections": "max-connections",
	"on_error.policy": "on-error", "on_error.limit": "on-error-limit",
	"throttle.read_iops": "read-iops", "throttle.write_iops": "write-iops",
	"throttle.read_bytes": "read-bytes", "throttle.write_bytes": "write-bytes", "throttle.burst": "burst",
	"slow_request": "slow-request", "faults": "fault",
}

// inFlags names the flag in the place of a Spec's field.
func inFlags(cmd *cobra.Command, err error) error {
	var f *spec.FieldError
	if !errors.As(err, &f) {
		return err
	}
	flag, ok := flagOf[f.Field]
	if cmd.Flags().Lookup(flag) == nil {
		flag = "fuse-" + flag // as serve calls it
	}
	if !ok {
		return err
	}
	return fmt.Errorf("--%s%s", flag, strings.TrimPrefix(f.Text, f.Field))
}

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"sluice/block"
	"sluice/gateway/config"
)

// configCheck is what daemon --check-config prints as JSON.
type configCheck struct {
	File     string           `json:"file"`
	Problems []config.Problem `json:"problems"`
}

// runCheck looks at the configuration, and at the flags that go over it.
func (f *daemonFlags) runCheck(cmd *cobra.Command) error {
	result := configCheck{File: f.config, Problems: []config.Problem{}}
	if f.config == "" {
		result.File = configFile
	}
	list, err := config.Problems(result.File)
	absent := f.config == "" && errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return err
	}
	result.Problems = append(result.Problems, list...)
	if len(list) == 0 {
		if _, err := f.load(cmd); err != nil {
			return err
		}
	}
	if err := f.printCheck(cmd, result, absent); err != nil {
		return err
	}
	if n := len(list); n > 0 {
		return block.Errorf(block.Invalid, "check configuration", result.File, -1, "%s", counted(n, "problem"))
	}
	return nil
}

func (f *daemonFlags) printCheck(cmd *cobra.Command, result configCheck, absent bool) error {
	out := cmd.OutOrStdout()
	if f.json {
		return printJSON(out, result)
	}
	for _, p := range result.Problems {
		where := escaped(result.File)
		if p.Line > 0 {
			where = fmt.Sprintf("%s:%d", where, p.Line)
		}
		if _, err := fmt.Fprintf(out, "%s: %s\n", where, p.Text); err != nil {
			return err
		}
	}
	var err error
	switch {
	case absent:
		_, err = fmt.Fprintf(out, "%s: is not there; the defaults and the flags hold\n", escaped(result.File))
	case len(result.Problems) == 0:
		_, err = fmt.Fprintf(out, "%s: nothing is wrong\n", escaped(result.File))
	}
	return err
}

// counted gives a number with its noun: "1 problem", "3 problems".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

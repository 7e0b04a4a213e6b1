package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sluice/backends/location"
	"sluice/block"
)

// usageError is wrong usage: exit code 2. The command that it belongs to is told
// with it, for the hint where to read on.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef makes a usageError of a command.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(format, args...)}
}

// advised is an error with what to do about it.
type advised struct {
	error
	advice string
}

func (a *advised) Unwrap() error { return a.error }

// advise adds a piece of advice to errors of one kind.
func advise(err error, kind block.Kind, advice string) error {
	if err == nil || block.KindOf(err) != kind {
		return err
	}
	return &advised{error: err, advice: advice}
}

// severally are the failures of a command that takes several names and goes on
// after one that fails: each is a line of its own.
type severally []error

func (s severally) Error() string   { return errors.Join(s...).Error() }
func (s severally) Unwrap() []error { return s }

// err is nil where nothing failed.
func (s severally) err() error {
	if len(s) == 0 {
		return nil
	}
	return s
}

// each removes all names, also after one that fails. When ctx ends, the rest are not
// tried.
func each(ctx context.Context, names []string, remove func(name string) error) error {
	var failures severally
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			if len(failures) == 0 {
				failures = append(failures, fmt.Errorf("remove %s: %w", name, err))
			}
			break
		}
		if err := remove(name); err != nil {
			failures = append(failures, err)
		}
	}
	return failures.err()
}

// report writes an error for the user: a line, or one for each of several.
func report(w io.Writer, err error) {
	list, ok := err.(severally)
	if !ok {
		list = severally{err}
	}
	for _, err := range list {
		_, _ = fmt.Fprintln(w, "sluice: "+describe(err)) // nobody is left to tell
	}
}

// describe writes an error as one line: object and cause, then what to do.
func describe(err error) string {
	text := err.Error()
	var usage *usageError
	var advice *advised
	switch {
	case errors.As(err, &usage):
		text += " (see " + usage.command + " --help)"
	case errors.As(err, &advice):
		text += "; " + advice.advice
	case errors.Is(err, context.Canceled) && !strings.Contains(text, "interrupted"):
		text = strings.ReplaceAll(text, context.Canceled.Error(), "interrupted")
	}
	lines := strings.Split(strings.TrimSpace(text), "\n") // several errors
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return escaped(strings.Join(lines, "; "))
}

// wasInterrupted reports whether an error comes of the end of ctx: what was cut
// off may report a timeout, or a connection that broke.
func wasInterrupted(ctx context.Context, err error) bool {
	if errors.Is(err, context.Canceled) {
		return true
	}
	kind := block.KindOf(err)
	return errors.Is(ctx.Err(), context.Canceled) && (kind == block.Canceled || kind == block.Transient || kind == block.Closed)
}

// interrupted gives the cause of an error, where that is the end of ctx.
func interrupted(ctx context.Context, err error, op, url string) error {
	if err == nil || !wasInterrupted(ctx, err) {
		return err
	}
	return &block.Error{Kind: block.Canceled, Op: op, Object: location.Redact(url), Off: -1, Err: context.Canceled}
}

// wellFormed makes wrong usage of the errors of URLs that make no sense.
func wellFormed(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		list, ok := err.(severally)
		if !ok {
			return ofURL(cmd, err)
		}
		for i := range list {
			list[i] = ofURL(cmd, list[i])
		}
		return list
	}
}

func ofURL(cmd *cobra.Command, err error) error {
	var e *block.Error
	if errors.As(err, &e) && e.Kind == block.Invalid && (e.Op == "parse" || strings.HasPrefix(e.Op, "parse ")) {
		return &usageError{command: cmd.CommandPath(), err: err}
	}
	return err
}

// exitCode gives the exit code that goes with an error; of several, wrong usage only
// where all are.
func exitCode(err error) int {
	if list, ok := err.(severally); ok {
		for _, err := range list {
			if exitCode(err) != exitUsage {
				return exitFailure
			}
		}
		return exitUsage
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

// exactly wants as many arguments as there are names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef(cmd, "%s: %s is missing", cmd.Name(), names[len(args)])
		case len(args) > len(names):
			return usagef(cmd, "%s: %q is one argument too many", cmd.Name(), args[len(names)])
		}
		return nil
	}
}

// atLeastOne wants an argument or more.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef(cmd, "%s: %s is missing", cmd.Name(), name)
		}
		return nil
	}
}

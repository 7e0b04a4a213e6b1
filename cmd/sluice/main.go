// Command sluice stands between virtual machines and the storage they use.
//
// This folder is the command tree: one file for each command, which reads flags,
// calls the packages that do the work, and prints. Nothing else imports it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

// Exit codes.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

func main() {
	// The first signal ends the context, so that commands clean up; a second
	// SIGINT or SIGTERM kills. Serving has an order of its own (serve.go).
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, func() {
		signal.Ignore(syscall.SIGHUP) // a terminal that is lost sends several
		stop()
	})
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// endings are the signals that ask for an end. SIGHUP says that the terminal is
// gone; who started us with it ignored (nohup) wants us to stay.
func endings() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// run executes a command line and gives the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "sluice: "+describe(err)) // nobody is left to tell
	return exitCode(err)
}

// buildVersion is the linker's version, or what the Go tool knows.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

// Command sluice stands between virtual machines and the storage they use.
//
// This folder is the command tree: one file for each command, which reads flags,
// calls the packages that do the work, and prints. Nothing else imports it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

// Exit codes.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// ownSignals marks a command that says itself what signals mean to it.
const ownSignals = "own-signals"

// interruptible has the first signal end a command's context, so that it cleans up;
// a second SIGINT or SIGTERM kills.
func interruptible(cmd *cobra.Command) {
	if _, own := cmd.Annotations[ownSignals]; own {
		return
	}
	running := cmd.Context()
	ctx, stop := signal.NotifyContext(running, endings()...)
	context.AfterFunc(ctx, func() {
		if running.Err() == nil { // it was a signal
			signal.Ignore(syscall.SIGHUP) // a terminal that is lost sends several
		}
		stop()
	})
	cmd.SetContext(ctx)
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
	ctx, end := context.WithCancel(ctx)
	defer end()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	report(stderr, err)
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

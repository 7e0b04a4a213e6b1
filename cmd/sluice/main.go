// Command sluice stands between virtual machines and the storage they use.
//
// This folder is the command tree: one file for each command, which reads flags,
// calls the packages that do the work, and prints. Nothing else imports it.
package main

import (
	"context"
	"fmt"
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

func main() { os.Exit(run(os.Args[1:])) }

// run executes a command line and gives the exit code. The first SIGINT or
// SIGTERM ends the context, so that commands clean up; the second one kills.
// Commands that serve take the signals over.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(os.Stderr, "sluice: "+describe(err))
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

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
	// The first SIGINT or SIGTERM ends the context, so that commands clean up;
	// the second one kills. Serving has an order of its own (serve.go).
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
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

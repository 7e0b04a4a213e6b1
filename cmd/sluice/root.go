package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
)

// globals are the flags that every command has.
type globals struct {
	json     bool
	logLevel string
	logJSON  bool
}

const rootLong = `Sluice stands between virtual machines and the storage that they use. It speaks
storage protocols in user space and hands each disk to QEMU, or to any other
NBD client, as an NBD export.

An image is named by a URL:

  PATH, file:///PATH              a local file or block device
  mem://SIZE                      RAM that is gone with the process
  nbd://HOST[:PORT]/EXPORT        an export of an NBD server
  nbd+unix:///EXPORT?socket=PATH  the same over a unix socket
  nfs://HOST[:PORT]/PATH          a file of an NFS server (4.2, 4.1, 3)

Sizes are bytes, or take K, M, G, T, P (powers of 1024): 512, 64K, 1.5G.

Every command that prints data can do so as JSON (--json). The exit code is 0
on success, 1 on failure and 2 on wrong usage; an error is one line on standard
error.`

const rootExample = `  sluice create disk.img --size 10G
  sluice serve disk.img --nbd unix:/tmp/disk.sock
  sluice copy nbd+unix:///?socket=/tmp/disk.sock backup.img`

// newRoot makes the command tree.
func newRoot() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "Serve, copy and manage disk images of virtual machines",
		Long:          rootLong,
		Example:       rootExample,
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          noSuchCommand,
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&g.json, "json", false, "print JSON")
	flags.StringVar(&g.logLevel, "log-level", "info", "log to standard error from this level on: debug, info, warn or error")
	flags.BoolVar(&g.logJSON, "log-json", false, "log JSON")
	complete(root, "log-level", "debug", "info", "warn", "error")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		interruptible(cmd)
		return g.setUpLog(cmd)
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd, "%w", flagError(err)) })
	root.SetVersionTemplate("sluice {{.Version}}\n")
	root.AddCommand(
		newCheck(g), newCompletion(), newCopy(g), newCreate(g), newDaemon(g), newExport(g), newInfo(g), newList(g), newMan(), newMap(g),
		newRemove(g), newResize(g), newServe(g),
	)
	for _, cmd := range root.Commands() {
		cmd.RunE = wellFormed(cmd.RunE)
	}
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			cmd.Example = "  sluice help serve"
			cmd.Run, cmd.RunE = nil, help
		}
	}
	return root
}

// help shows the help of a command. The library's own takes a command that is not
// there for a success.
func help(cmd *cobra.Command, args []string) error {
	of, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return usagef(cmd, "unknown command %q", strings.Join(args, " "))
	}
	of.InitDefaultHelpFlag() // it is listed too
	return of.Help()
}

// noSuchCommand runs when no command was given, or none that is there.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef(cmd, "no command given")
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return usagef(cmd, "unknown command %q; did you mean %s?", args[0], strings.Join(like, " or "))
	}
	return usagef(cmd, "unknown command %q", args[0])
}

// setUpLog makes the default logger what the flags ask for.
func (g *globals) setUpLog(cmd *cobra.Command) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(g.logLevel)); err != nil {
		return usagef(cmd, "--log-level %s is none of debug, info, warn and error", g.logLevel)
	}
	g.logTo(cmd.ErrOrStderr(), level)
	return nil
}

// logTo makes a default logger.
func (g *globals) logTo(w io.Writer, level slog.Leveler) {
	opts := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, opts)
	if g.logJSON {
		handler = slog.NewJSONHandler(w, opts)
	}
	slog.SetDefault(slog.New(handler))
}

// printJSON writes v, indented, with a newline after it.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// complete offers the values of a flag to the shell.
func complete(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // no such flag, or twice
	}
}

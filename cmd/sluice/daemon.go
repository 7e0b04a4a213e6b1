package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sluice/gateway/config"
	"sluice/gateway/daemon"
)

// configFile is where the configuration is when nobody says otherwise.
const configFile = "/etc/sluice/sluice.toml"

const daemonLong = `Serve many images, which can be added, changed and removed while it runs: over
its API (sluice export), or by its configuration.

NBD clients find every export by its name at the daemon's sockets; with --fuse each
is a file of that name as well. Exports that were added over the API are there again
after a restart, also after the daemon was killed.

The configuration is TOML; ` + configFile + ` is read when it is there and
--config names no other. Flags win over it. SIGHUP reads it again: its exports are
added, changed and removed accordingly. SIGTERM and SIGINT end the daemon as they end
sluice serve: requests that have arrived are finished, images are flushed.

--check-config reads the configuration as strictly as a start does, prints all that is
wrong with it and ends, without touching anything: exit code 0 when nothing is wrong.

For each place a line "ready WHAT WHERE" is printed on standard output when
everything that can be opened is open.`

const daemonExample = `  sluice daemon
  sluice daemon --config sluice.toml --log-level debug
  sluice daemon --check-config --config sluice.toml
  sluice daemon --state /tmp/state --api unix:/tmp/api.sock --nbd unix:/tmp/nbd.sock --fuse /mnt/disks`

// daemonFlags are the flags of daemon.
type daemonFlags struct {
	*globals
	config      string
	api, nbd    []string
	state       string
	fuse        string
	metrics     string
	allowFaults bool
	checkConfig bool
}

func newDaemon(g *globals) *cobra.Command {
	f := &daemonFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "daemon",
		Short:   "Serve many images, managed while it runs",
		Long:    daemonLong,
		Example: daemonExample,
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },

		Annotations: map[string]string{ownSignals: ""},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "configuration file (default "+configFile+", if it is there)")
	flags.StringArrayVar(&f.api, "api", nil, "serve the API at unix:PATH, or at tcp:HOST:PORT with certificates (may be repeated)")
	flags.StringArrayVar(&f.nbd, "nbd", nil, "listen for NBD clients at unix:PATH or tcp:HOST:PORT (may be repeated)")
	flags.StringVar(&f.state, "state", "", "folder on a local disk for what has to survive a restart")
	flags.StringVar(&f.fuse, "fuse", "", "mount at this empty folder, with each export as a file in it")
	flags.StringVar(&f.metrics, "metrics", "", "serve /metrics and /healthz over HTTP at HOST:PORT; none serves them nowhere")
	flags.BoolVar(&f.allowFaults, "allow-faults", false, "let exports have fault rules, for rehearsals")
	flags.BoolVar(&f.checkConfig, "check-config", false, "print what is wrong with the configuration, a line FILE:LINE: TEXT each, and end")
	if err := errors.Join(cmd.MarkFlagDirname("state"), cmd.MarkFlagDirname("fuse"), cmd.MarkFlagFilename("config", "toml")); err != nil {
		panic(err) // there are no such flags
	}
	return cmd
}

func (f *daemonFlags) run(cmd *cobra.Command) error {
	if f.checkConfig {
		return f.runCheck(cmd)
	}
	cfg, err := f.load(cmd)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return err
	}
	f.logTo(cmd.ErrOrStderr(), level)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	stop, cut, release := endSignals(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer release()
	return daemon.Run(stop, cut, hangup, daemon.Options{
		Config: cfg, Reread: func() (*config.Config, error) { return f.load(cmd) },
		Version: buildVersion(), Log: slog.Default(), Level: level,
		Announce: func(what, where string) { f.announce(cmd, what, where) },
	})
}

// load reads the file and puts the flags over it.
func (f *daemonFlags) load(cmd *cobra.Command) (*config.Config, error) {
	cfg, err := f.file()
	if err != nil {
		return nil, err
	}
	given := cmd.Flags().Changed
	if given("api") {
		cfg.API = f.api
	}
	if given("nbd") {
		cfg.NBD = f.nbd
	}
	for flag, to := range map[string]struct {
		from string
		key  *string
	}{
		"state": {f.state, &cfg.State}, "fuse": {f.fuse, &cfg.FUSE}, "metrics": {f.metrics, &cfg.Metrics}, "log-level": {f.logLevel, &cfg.LogLevel},
	} {
		if given(flag) && to.from == "" {
			return nil, usagef(cmd, "--%s: nothing is given", flag)
		}
		if given(flag) {
			*to.key = to.from
		}
	}
	if given("metrics") && f.metrics == "none" {
		cfg.Metrics = ""
	}
	if given("allow-faults") {
		cfg.AllowFaults = f.allowFaults
	}
	return cfg, f.check(cmd, cfg)
}

// check finds what the flags have made wrong.
func (f *daemonFlags) check(cmd *cobra.Command, cfg *config.Config) error {
	err := cfg.Check()
	if err == nil {
		return nil
	}
	text := errors.Unwrap(err).Error()
	if key, _, _ := strings.Cut(text, ":"); cmd.Flags().Changed(key) {
		text = "--" + text
	}
	return usagef(cmd, "%s", text)
}

// file reads the configuration; without one, everything is as usual.
func (f *daemonFlags) file() (*config.Config, error) {
	if f.config != "" {
		return config.Load(f.config)
	}
	cfg, err := config.Load(configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return config.Default(), nil
	}
	return cfg, err
}

// announce prints where the daemon can be reached.
func (f *daemonFlags) announce(cmd *cobra.Command, what, where string) {
	var err error
	if f.json {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"ready": what, "at": where}) // one line each
	} else {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "ready", what, where)
	}
	if err != nil {
		slog.Warn("cannot print where the daemon is", "what", what, "where", where, "err", err)
	}
}

// endSignals gives two contexts: the first one ends with the first of the signals,
// the second one with the next. After that, they kill.
func endSignals(parent context.Context, endings ...os.Signal) (stop, cut context.Context, release func()) {
	stop, stopNow := context.WithCancel(parent)
	cut, cutNow := context.WithCancel(context.WithoutCancel(parent))
	signal.Ignore(syscall.SIGPIPE) // who read our output may leave, clients stay
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, endings...)
	over := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for acts := []func(){stopNow, cutNow}; len(acts) > 0; {
			select {
			case s := <-signals:
				if s == syscall.SIGHUP && len(acts) == 1 { // a terminal that is lost sends it more than once
					continue
				}
				slog.Debug("stopping", "signal", s.String())
				acts[0]()
				acts = acts[1:]
			case <-over:
				return
			}
		}
		signal.Stop(signals)
	}()
	return stop, cut, func() {
		signal.Stop(signals)
		close(over)
		<-ended
		stopNow()
		cutNow()
	}
}

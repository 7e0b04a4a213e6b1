package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/backends/location"
	"sluice/gateway/apiclient"
	"sluice/gateway/spec"
)

const exportLong = `Add, change, remove and watch the exports of a running daemon.

The daemon is asked over its API: at unix:/run/sluice/api.sock for root, at
unix:$XDG_RUNTIME_DIR/sluice/api.sock for everybody else, or where --api says. Over
tcp:HOST:PORT both sides show certificates (--api-cert, --api-key, --api-ca).`

const exportExample = `  sluice export add disk /var/lib/images/disk.img
  sluice export list
  sluice export --api unix:/tmp/api.sock show disk
  sluice export set disk --read-iops 500
  sluice export remove disk`

// apiFlags say where the daemon is; all commands of export have them.
type apiFlags struct {
	*globals
	address       string
	cert, key, ca string
}

func newExport(g *globals) *cobra.Command {
	f := &apiFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "export",
		Short:   "Manage the exports of a running daemon",
		Long:    exportLong,
		Example: exportExample,
		Args:    cobra.ArbitraryArgs,
		RunE:    noSuchCommand,

		SuggestionsMinimumDistance: 2, // as the library has it for the root
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.address, "api", "", "where the daemon is: unix:PATH or tcp:HOST:PORT (default: its socket in the runtime folder)")
	flags.StringVar(&f.cert, "api-cert", "", "file with this client's certificate (PEM), for tcp")
	flags.StringVar(&f.key, "api-key", "", "file with the certificate's key (PEM), for tcp")
	flags.StringVar(&f.ca, "api-ca", "", "file with the authority (PEM) that signed the daemon's certificate, for tcp")
	cmd.AddCommand(
		newExportAdd(f), newExportEvents(f), newExportList(f), newExportRemove(f), newExportResize(f), newExportResume(f),
		newExportSet(f), newExportShow(f), newExportStats(f),
	)
	for _, c := range cmd.Commands() {
		c.RunE = wellFormed(c.RunE)
	}
	return cmd
}

// client makes the client that the flags ask for; it is the caller's to close.
func (f *apiFlags) client() (*apiclient.Client, error) {
	address := f.address
	if address == "" {
		var err error
		if address, err = apiclient.DefaultAddress(); err != nil {
			return nil, err
		}
	}
	return apiclient.New(apiclient.Config{Address: address, Cert: f.cert, Key: f.key, CA: f.ca})
}

// ask runs a command about exports whose names have to be possible ones.
func (f *apiFlags) ask(cmd *cobra.Command, do func(*apiclient.Client) error, names ...string) error {
	for _, name := range names {
		if err := spec.CheckName(name); err != nil {
			return usagef(cmd, "%w", err)
		}
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return do(client)
}

// completionWait is how long a shell waits for the daemon.
const completionWait = time.Second

// exportNames offers the names of exports to the shell, for the first argument.
func (f *apiFlags) exportNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return f.allNames(cmd)
}

// allNames offers them for any argument. A daemon that does not answer has none.
func (f *apiFlags) allNames(cmd *cobra.Command) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
	defer cancel()
	var names []string
	client, err := f.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	all, err := client.List(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, st := range all {
		names = append(names, st.Spec.Name+"\t"+string(st.State))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// absolute gives an image's URL as the daemon has to be told it, which is in
// another folder: local paths begin at the root. Paths are not cleaned: after a
// link, ".." is not what the text says.
func absolute(image string) (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	switch location.Scheme(image) {
	case "":
		if image == "" || filepath.IsAbs(image) {
			return image, nil
		}
		return here + "/" + image, nil
	case "nbd+unix", "nbds+unix", "nbd", "nbds":
		return absoluteParams(image, here), nil
	}
	return image, nil
}

// absoluteParams does it for the files that parameters of an NBD URI name.
func absoluteParams(image, here string) string {
	base, query, found := strings.Cut(image, "?")
	if !found {
		return image
	}
	var b strings.Builder
	b.WriteString(base + "?")
	for query != "" {
		end := strings.IndexAny(query, "&;")
		if end < 0 {
			end = len(query)
		}
		b.WriteString(absoluteParam(query[:end], here))
		if end < len(query) {
			b.WriteByte(query[end])
			end++
		}
		query = query[end:]
	}
	return b.String()
}

func absoluteParam(param, here string) string {
	name, value, _ := strings.Cut(param, "=")
	path, err := url.PathUnescape(value)
	if name != "socket" && name != "tls-certificates" || err != nil || path == "" || path[0] == '/' || path[0] == 0 {
		return param
	}
	coded := url.QueryEscape(here + "/" + path)
	return name + "=" + strings.NewReplacer("+", "%20", "%2F", "/").Replace(coded)
}

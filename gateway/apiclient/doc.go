// Package apiclient is the client of a daemon's HTTP API (gateway/httpapi): for
// the commands, and for Go programs. Failures are of type *block.Error, with the
// kind and the text that the daemon gave them.
//
//	client, err := apiclient.New(apiclient.Config{Address: "unix:/run/sluice/api.sock"})
//	…
//	defer client.Close()
//	status, err := client.Add(ctx, spec.Spec{Name: "disk", URL: "/var/lib/images/disk.img"})
//
// A [Client] may be used by several goroutines at once. It keeps connections for
// the next request, each with goroutines of net/http's, until Close; it starts
// none itself. A request that fails is not repeated, and a stream of events that
// breaks is not opened again: that is for the caller to decide.
package apiclient

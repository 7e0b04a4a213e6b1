// Package httpapi is the daemon's HTTP+JSON API: what can be done with exports,
// what the daemon says of itself, and a stream of what changes. The daemon starts
// it over a gateway; gateway/apiclient is its client.
//
// It is served on unix sockets, whose file mode says who may use it, and on TCP
// only to clients with a certificate. Who gets in is an administrator.
//
// A [Server] owns the listeners that it was given until they are closed, and the
// goroutines of their connections; Close ends and waits for them. Nothing of an
// export is kept here: each request asks the gateway. Turns (turns.go) let one
// change of an export's settings or size follow another; who has one calls the
// gateway, so the gateway must not call the API. The mutexes are held for a moment
// only, one at a time.
//
// The stages of a request are in the order of the files: server.go (connections),
// guard.go (who may, how much, how long), api.go (huma: routes, checks, failures),
// then the handlers in exports.go, settings.go, daemon.go and events.go.
package httpapi

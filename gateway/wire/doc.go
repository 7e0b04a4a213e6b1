// Package wire has what travels over the daemon's HTTP API beside the exports
// themselves: failures, and what the daemon says of itself. The server
// (gateway/httpapi) writes them, the client (gateway/apiclient) reads them.
//
// The package starts no goroutine and holds no state.
package wire

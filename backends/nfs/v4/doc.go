// Package v4 is a client of NFSv4.1 and 4.2 (RFC 8881, RFC 7862): one server, one
// user, one session at a time, any number of files. backends/nfs opens it and calls it
// through package remote; it calls package rpc.
//
// # A call's way
//
// io.go builds a read, a write or a commit, tree.go and the others everything else,
// as an operation. call.go takes a slot of the session (slots.go), encodes SEQUENCE
// and the operation into the slot's call, sends it, and decodes the reply, in the
// caller's goroutine. Where the session is gone it tells the keeper and tries again
// with the next session; where the server wants time (NFS4ERR_DELAY, NFS4ERR_GRACE) it
// waits. Limit: one round trip, with the system calls of a batch shared (package rpc);
// no memory is taken.
//
// # What makes it safe
//
// A slot's sequence number makes a call at most once within a session: package rpc
// sends what was under way again, as it was, when a connection broke. A call whose
// outcome is not known although it is given up spoils the session: it is destroyed
// and with it the late copies of its calls. A server that was restarted knows no
// session of before, so nothing is answered until the keeper has opened the files
// again and has had what was not committed written again (remote.Kept).
//
// # Concurrency
//
// Client.mu guards the table of files and the state of recovery; slots has a lock of
// its own; neither is held during a call. Two goroutines per Client: keep (keeper.go),
// the only one that makes sessions and opens files again, and renew (renew.go), which
// keeps the lease. Close waits for both. Lock order: Client.mu, then slots.mu.
package v4

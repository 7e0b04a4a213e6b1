// Package state keeps on local disk what a daemon must know after a crash: the
// exports that were added at run time, and which numbers are taken. The gateway
// calls it, from any goroutine.
//
// It is one bbolt file, state.db, in a folder that a [State] has for itself as
// long as it is open (flock on state.lock). A call that changes something
// returns when the change is on disk. Calls that come while another one is being
// written are written together by the next one that gets its turn, so a thousand
// callers do not wait for a thousand transactions.
//
// Lock order:
//
//	State.turn          the caller that writes; held during a transaction
//	└─ State.mu         what waits for its turn, and the numbers in hand
//
// The package starts no goroutine.
package state

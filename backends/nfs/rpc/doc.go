// Package rpc is a client of ONC RPC version 2 over TCP (RFC 5531) for NFS: calls are
// pipelined, written together, answered in any order, and payloads are read straight
// into the caller's memory. backends/nfs's protocol versions call it; it knows
// nothing of NFS.
//
// A [Transport] is a place for calls with at most one connection at a time, which it
// makes anew when it breaks. Calls that were under way are then sent again as they
// were, with the same xid: that this is safe is for the protocol above to see to
// (slots in NFSv4.1, idempotence in v3).
//
// # A call's way
//
// transport.go: Do numbers the call and queues it. If nobody is writing, the caller
// is the writer: it sends all that is queued with one writev, and again, until the
// queue is empty; having written a few batches for others it leaves the rest to the
// goroutine writeOn, so that its own reply does not wait. Then it sleeps until the
// reading goroutine (read.go) has put the reply where it belongs. Who is about to write
// yields first while other calls are in flight, and so does the reader before it waits
// for more: callers that were woken together are then sent together.
//
// # Concurrency
//
// Transport.mu guards the queue, the connection and what Call says is guarded by it;
// it is never held during a system call. Three goroutines per Transport: run (makes
// connections and reads replies), writeOn, and watch (notices silence); Close waits
// for them. Lock order: Transport.mu is a leaf.
package rpc

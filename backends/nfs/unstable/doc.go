// Package unstable keeps what was written to a file of an NFS server with UNSTABLE and
// is not known to be committed (RFC 8881, sections 18.3 and 18.32; RFC 1813, sections
// 3.3.7 and 3.3.21). A server that restarts may forget such writes; its verifier is
// then another, and all of them have to be sent again. The Device of backends/nfs is
// its only user.
//
// # A change's way
//
// [Log.Begin] waits until no overlapping change is under way and there is room, and
// reserves memory. One of four methods ends the [Change] when the server has answered:
// then its bytes, or only its range, stand at the end of the log. Since overlapping
// changes are never under way at once, the log's order is the server's, and a change
// that is sent again after a broken connection cannot overtake a newer one. A COMMIT
// that succeeds takes the front of the log off ([Log.Mark], [Log.Committed]).
//
// What has to be written again is worked out only when that is needed (rewrite.go):
// of each byte the newest.
//
// # Memory
//
// Bytes are copied into pooled chunks (chunk.go), outside the lock. What is kept, with
// a fixed amount for each entry, and what is reserved stays below the limit, but for a
// single change that is larger than all of it.
//
// # Concurrency
//
// Log.mu guards everything; it is a leaf, and not held while bytes are copied or the
// server is called. There are no goroutines.
package unstable

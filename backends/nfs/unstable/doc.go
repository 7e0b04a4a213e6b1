// Package unstable keeps what was written to a file of an NFS server and is not known to
// be durable there (RFC 8881, sections 18.32 and 18.3; RFC 1813, sections 3.3.7 and
// 3.3.21), so that it can be written again after the server has lost it. Package nfs has
// a Log for each file that is open for writing.
//
// A change is announced with Begin before it is sent and ended by one of the methods of
// Change when its reply is there. Changes that overlap are never under way at once, so
// the order in which they end is the order at the server, also where one of them is sent
// again after a connection was lost. What ended is an entry of the Log, until a COMMIT
// with the entry's verifier takes it out.
//
// An entry is lost when a COMMIT shows another verifier than it has, when the server is
// said to be another instance, or when a COMMIT failed: the server may then have dropped
// the bytes and forgotten the error. While an entry is lost the Log is Stale; Rewrite or
// Restore writes such bytes again. Durable entries above lost ones stay as masks, without
// bytes, so that older bytes are not written over newer ones.
//
// One mutex guards a Log. It is not held while bytes are copied or sent. No goroutine is
// started.
package unstable

// Package nfs is a Device on a file of an NFS server, and a Store on a folder of one,
// without the kernel's client:
//
//	nfs://HOST[:PORT]/PATH?vers=4.2|4.1|4|3&nconnect=N&uid=N&gid=N&reconnect=30s|off|forever
//	    &timeout=10s&silence=10s&rsize=1M&wsize=1M&keep=64M&share=on|off&mountport=N&portmap=N
//
// The protocol is spoken by a package for each version (v4, v3) behind package remote;
// what is here is the same for all.
//
// # A request's way
//
// Device.enter checks the range and passes the gate; io.go cuts what is longer than a
// single READ or WRITE into pieces, a few of which are in flight at once; zero.go,
// extents.go and resize.go hold one power each.
//
// # Durability
//
// A write goes out UNSTABLE. Until a COMMIT with the same verifier as its reply has
// made it durable, its bytes are kept in package unstable. Flush sends the COMMIT
// (flush.go); where the verifier is another one, the server was restarted or has lost
// writes: what is kept is written again first. Flushes that wait for one another share
// a COMMIT, and none is sent where nothing was changed since the last one. FUA is a
// stable write. When more than half of what may be kept is, the committer sends a COMMIT
// of its own. After the server was away the client asks for what is kept (kept.go)
// before it lets waiting calls go on, so that no read sees a file without what was
// acknowledged.
//
// # Concurrency
//
// Clients are shared by all Devices and Stores of the process with the same
// configuration (pool.go). A Device that is open for writing has one goroutine, the
// committer, which Close waits for; a request in several pieces has some for as long as
// it lasts. Device.gate counts the calls, so that Close can wait. Locks of a Device, in
// the order in which they may be taken:
//
//	turn      one COMMIT, rewriting or Resize at a time; a channel, so that who waits
//	          can be cancelled
//	log's own not held during a call to the server
package nfs

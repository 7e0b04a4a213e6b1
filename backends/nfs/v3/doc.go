// Package v3 is a client of NFSv3 (RFC 1813) over TCP, with the MOUNT protocol
// (RFC 1813, appendix I) and the port mapper (RFC 1833, version 2). It implements
// package remote; backends/nfs calls it.
//
// # A read's way
//
// io.go: File.Read takes a slot (slots.go), which is one of the calls that may be under
// way, encodes the call into the slot's head, and has the slot's transport make it.
// The payload comes straight into the caller's memory; the rest of the reply is decoded
// here by the caller's goroutine. Nothing is allocated. What names files (tree.go,
// walk.go, list.go) goes through ask (call.go), which does.
//
// # What is sent twice
//
// A call whose connection broke is sent again, with the same xid and, where that can be
// had, from the same port, so that a server with a reply cache answers it from there.
// Others carry it out twice: that changes nothing for READ, WRITE, COMMIT, GETATTR and
// SETATTR; what CREATE, REMOVE, RENAME and LINK say then is checked against what is
// there (tree.go).
//
// # What a server may lose
//
// Each new connection first asks for the kept writes of all files (revive.go). Where
// one turns out to be lost, all other connections are broken, and none is used again
// before everything is written anew: no read sees what was there before a write that
// was acknowledged.
//
// # Concurrency
//
// There is no goroutine but those of package rpc. Client.mu guards the open files and
// what is known of the exports; it is not held during a call. Client.reviving (a token)
// is held by the one connection that is being revived; whoever holds it asks through its
// own connection only, and waits for nobody who waits for another. File.verifying is
// taken inside it.
package v3

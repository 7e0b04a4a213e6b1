// Package nbd is the Network Block Device protocol: a server, a client, and the
// wire format that both share. It knows package block and nothing else of the
// project, so any Go program can use it.
//
// Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md,
// with the extended-header extension, and doc/uri.md beside it. Only the fixed
// newstyle handshake is spoken. CHECKLIST.md lists every behaviour with the test
// that covers it.
//
// # Serving
//
// [NewServer] takes a [Catalog] of exports; [Server.Serve] accepts connections
// from a listener, [Server.Shutdown] drains them. Each connection has one
// goroutine that reads requests; requests that may have to wait run on a bounded
// number of workers which the connection owns and waits for.
//
// # Connecting
//
// [Dial] returns a [Client], which is a block.Device over one or more
// connections.
package nbd

// Package nbd is a Device on an export of another NBD server, and a Store that
// lists a server's exports. It is package sluice/nbd's client behind a URL:
//
//	nbd://HOST[:PORT]/NAME              TCP; port 10809
//	nbds://HOST[:PORT]/NAME             TCP with TLS
//	nbd+unix:///NAME?socket=PATH        unix socket (%00NAME: abstract)
//	nbds+unix:///NAME?socket=PATH       unix socket with TLS
//
// The parameters of the NBD URI specification and of libnbd are understood
// (tls-hostname, tls-verify-peer, tls-certificates, tls-type=x509), and these of
// our own, which are not sent anywhere:
//
//	connections=N        use N connections (1 … 64) where the server allows it; default 1
//	reconnect=WHEN       how long requests wait for a broken connection to come back:
//	                     a duration (30s, 5m), off, or forever; default 30s. After that
//	                     they fail until it is back
//	timeout=DURATION     bounds connecting and the handshake; default 10s
//	bitmap=NAME          make QEMU's dirty bitmap NAME readable; may be given several times
//	stable-cache=on|off  on: a server that was restarted has lost nothing it had
//	                     acknowledged, so a flush after a reconnect need not say that
//	                     it may have; default off (see nbd.Client.Flush)
//
// The process's default logger is told when a server is lost and found again.
//
// The package holds no state; goroutines and connections belong to the Client,
// and its Close waits for them.
package nbd

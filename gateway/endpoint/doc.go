// Package endpoint opens the sockets that a server listens on: addresses as
// they are written on the command line (unix:PATH, tcp:HOST:PORT), unix sockets
// that outlive a killed process, the user's runtime folder, and sockets that a
// service manager hands over. It also speaks to the service manager: what state
// the process is in, that it is alive, and which descriptors to keep for the next
// process. The gateway and the commands call it.
//
// A unix socket is made with mode 0660. One that nobody listens on is replaced.
// While a socket is made or replaced, the folder is locked (flock), so that two
// servers that start at the same time do not replace each other's. Where another
// process keeps that lock, a socket can still be made, but not replaced.
//
// A [Watchdog] owns one goroutine, which its Close waits for; nothing else starts
// any.
package endpoint

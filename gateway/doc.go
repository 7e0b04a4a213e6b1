// Package gateway joins devices and exporters. The commands call it.
//
// A [Gateway] holds many exports: it opens their images, puts filters on them,
// offers them over NBD and as files of a FUSE mount, changes and exchanges them
// while they are used, and takes them down in order. A [Single] serves one device
// until it is told to stop.
//
// # The life of an export
//
//	reserved   its name is taken; clients that ask for it wait
//	open       the stack of devices is there, clients come and go
//	withdrawn  nobody new comes in
//	drained    those who were in have been answered and sent away
//	ended      flushed, closed, out of the table
//
// An export that was added at run time is in the state before Add returns, and out
// of it when Remove returns; where the state cannot be written, it is not added, or
// not removed. One that cannot be opened after a restart is tried again for as long
// as that may help. Until it is open, its FUSE file has a device of its own, which
// treats requests as the error policy says (awaited.go).
//
// # Locks and goroutines
//
//	export.control     held by who opens, changes, exchanges or ends it, while devices are called
//	  awaited.hold     its locks, while it tells that it has frozen
//	    stack.hold     its locks, while it tells of a change
//	      Gateway.mu       the table, and whose counters are in the registry; held for some instructions
//	        export.mu      what the export is; likewise
//	          absent.mu    how far the opening of its image is; likewise
//	          events.mu    likewise
//	      cuts.mu          likewise
//
// Both hold filters call back with a lock of theirs: nobody who has Gateway.mu or
// export.mu makes them change.
//
// A Gateway owns a goroutine for each export that waits for its image and one for
// each subscriber to events; whoever calls Serve brings its own. Close waits for
// all of them. A Single owns the device and the listeners from NewSingle to the
// end of Run, and a goroutine for each listener, which Run waits for.
package gateway

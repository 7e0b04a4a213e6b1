// Package daemon puts the daemon together: configuration, state, metrics, the FUSE
// mount, the gateway, its sockets, its API, and what a service manager wants to
// know. Only the command calls it.
//
// # Start
//
//	state, metrics    who else has the state is found out before anything else is touched
//	files             mounted, or taken over from the process before
//	gateway           no exports yet
//	exports           of the state and of the configuration, each tried once
//	sockets           those that were handed over, but for those of exports alone, then those of the configuration
//	ready             FUSE requests that waited are served, the manager is told
//
// NBD clients are accepted before the exports are open, and wait for theirs.
//
// # End
//
// The reverse. What a service manager keeps for the next process (the FUSE
// connection, the listening sockets) is left as it is: clients do not see the end,
// they wait.
//
// Run's goroutine owns everything; a goroutine for each listener, one that waits for
// the end of the mount, and one for removals of exports, end with it. Who unmounts from outside ends the mount
// alone; a reload makes the next one, and not before nothing is left of the old.
// Locks are taken in the order reloading, losing.
package daemon

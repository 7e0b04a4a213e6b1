// Package fsxtest does random operations on a file, as the classic fsx does, and the same on a plain file beside it, and
// compares what both then hold. Tests call it; nothing that is shipped does.
//
// A run is decided by its seed. One that finds a difference tells the seed, the operations that touched the byte that
// differs and the last ones; the log of all of them can be read and done again.
//
// All happens on the caller's goroutine. The server of the file must be another process: a page fault in a mapping
// stops a whole processor of the Go runtime, which a server in the same process may need to answer it. One that is in
// the same process has to do Without [MapRead] and [MapWrite].
package fsxtest

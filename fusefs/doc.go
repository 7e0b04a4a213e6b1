// Package fusefs is a FUSE mount whose files are devices: a flat folder, one file
// for each, for whoever wants a disk as a file (QEMU, qemu-img, backup tools, a
// loop device). It knows package block and nothing else of the project. The
// gateway calls it.
//
// [Mount] makes the mount, [FS.Add] and [FS.Remove] put files into it and take
// them out, [FS.Close] unmounts. [Resume] goes on where another process stopped or
// died.
//
// The package reads /dev/fuse itself and answers what is on the data path (read,
// write, sync, fallocate, lseek, copy_file_range); loop.go says how. Everything
// else goes through go-fuse's ProtocolServer to an implementation of its
// RawFileSystem (metadata.go). docs/design/0006-fuse.md says why.
//
// # Who owns what
//
// The readers are goroutines of the FS's loop; Close and Detach wait for them. A
// request and its bytes lie in the buffer of the reader that took it; one that is
// queued is copied. A file's gate counts the requests that may touch its device.
// While clients that wait got signals a goroutine looks whether they are being
// killed; Close and Detach wait for it, too.
//
// Locks, in the order in which they may be taken:
//
//	FS.control     changes to the FS; held while the kernel is told of a new size,
//	               which may wait for a client that waits for us: no request takes
//	               it. It is not held while the kernel is told of a file that goes,
//	               or asked whether one is open: FS.telling counts that, for Detach
//	interrupts.mu  whose clients got signals; held while these are looked for
//	tree.mu        names and IDs; held for a look-up
//	openings.mu, work.mu, passthrough.mu, failureLog.mu  one field each;
//	               nothing is taken inside
package fusefs

// Package file is a Device on a local file or block device, and a Store on a
// directory of such files: PATH or file:///PATH?direct=on|off&lock=on|off&share=on|off.
//
//	direct  bypass the page cache (O_DIRECT)
//	lock    on: fail where the image cannot be locked; off: take no lock;
//	        not given: lock where the file system can
//	share   let others write at the same time (QEMU's share-rw)
//
// # A request's way
//
// Device.enter checks the range and passes the gate; io.go moves the bytes in a
// loop until all are moved; direct.go stands in between for O_DIRECT; zero.go,
// extents.go, flush.go and resize.go hold one power each. Every system call
// that carries data, changes allocation or syncs goes through the kernel
// interface, in whose place tests put faults.
//
// # Durability
//
// Flush is fdatasync; FUA is RWF_DSYNC. When either reports that write-back
// failed, the kernel may have dropped the dirty pages and will report success
// the next time, though bytes that it acknowledged are gone. So the first such
// failure is kept: every later Flush and FUA write of the Device fails with it
// until the image is opened anew (flush.go). A write for which there is no room
// is no such failure: it can be repeated.
//
// # Locks between processes
//
// An open Device holds QEMU's image lock: open-file-description locks on single
// bytes of the file (lock.go). They go when the descriptor goes, also by kill -9.
// A block device is also opened with O_EXCL for writing, unless share=on or
// lock=off, so that nobody writes under a mounted file system.
//
// # Concurrency
//
// Reads and writes hold no lock. Device.gate counts the calls so that Close
// closes the descriptor under none of them; pinned ranges count as calls.
// Locks of a Device, in the order in which they may be taken:
//
//	resizing       one Resize at a time
//	fragments      O_DIRECT on a file of odd size: parts that go through the
//	               page cache hold it alone, others share it
//	syncs.mu       a flush holds it alone, FUA writes share it
//	syncs.looking  one at a time looks whether write-back failed
//
// The package starts no goroutine.
package file

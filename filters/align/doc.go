// Package align presents a Device whose requests must be whole blocks as one
// that takes any byte range (Block.Min is 1). Whoever serves a disk to clients
// that do not know of block sizes puts it on top of an O_DIRECT file or a 4 KiB
// sector device.
//
// # A request's way
//
// A request is split into a head in the block where it begins, a middle of whole
// blocks and a tail in the block where it ends. The middle goes straight to the
// Device below, from and to the caller's memory; an aligned request is all
// middle. Head and tail of a write are read, changed and written back with their
// whole block (so a crash can tear neighbours in that block only if the Device
// below tears blocks); of a zeroing likewise, with zeroes; of a discard they are
// left out. Extents and prefetches are rounded outward, and extents cut again.
//
// # Concurrency
//
// Every changing request holds a range of blocks in a rangeLock from its first
// read to its last write: alone if it has a head or tail, since it writes
// neighbours' bytes back, else shared. Reads hold nothing. A gate keeps Close
// waiting. The package starts no goroutine.
//
// Two filters on two Devices of one image do not know of each other and could
// write each other's neighbours back: open an image once and share the filter.
//
// # What vanishes
//
// Resize, since a size that is no multiple of the block could not be kept; file
// ranges of a writable Device, since writes through them would pass the lock;
// writes that never wait, since they do so for that lock; and every power that
// this package does not know.
package align

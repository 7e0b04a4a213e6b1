// Package throttle bounds the requests and bytes a second that pass a Device.
// The gateway puts it on top of a stack, so that what waits here for its turn
// does not count as slow storage.
//
// # A request's way
//
// Where nothing is bounded a call reads one atomic word and goes on. Otherwise it
// enters a lane: one for reads, one for changes. The lane has a bucket of
// requests and one of bytes, which fill with time up to what may be saved up. A
// request passes when nobody waits before it and neither bucket is in debt; then
// it takes what it costs, even if that is more than is there. So a request may
// be of any size, and the average is exact: who comes next waits until the debt
// is paid. Those who wait stand in a queue and pass in the order in which they
// came; a large request is never overtaken by small ones.
//
// # What counts
//
// Reads count with their bytes, and so do writes. Zeroing counts like a write
// of as many bytes: the storage may have to write them out, and a client could
// evade the bound with it otherwise. A discard counts as a request of no bytes,
// since none move, and a trim of a whole disk would stop the guest for as long
// as writing it takes. QEMU counts the requests of a guest's disk in the same
// way. Flushes, extents, bitmaps, prefetches and resizes are not bounded. What
// the Device below would refuse for its range or because it is read-only costs
// nothing.
//
// A read that must not wait (ReadNowait) fails with block.ErrWouldBlock where it
// would have to; a file range is pinned only where it lies in memory as a whole,
// so that it is sure to be used, and where it need not wait. What moves through a
// range that was pinned before there was a bound is not bounded.
//
// # Concurrency
//
// Each lane has a mutex for its buckets and its queue, which is held during no
// call of the Device below; Device.mu guards the limits as they were set and is
// taken before the lanes'. The package starts no goroutine: one timer for each
// lane, wound while somebody waits, serves the queue. Close fails those who wait
// and then closes the Device below, which waits for the calls inside it.
//
// # What vanishes
//
// Writes that never wait, since a bounded one does, and every power that this
// package does not know.
package throttle

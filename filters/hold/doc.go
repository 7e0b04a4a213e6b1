// Package hold keeps requests waiting while the storage below is away, so that
// an outage is a wait for the clients and no error. The gateway puts it above the
// image and below what its exporters hold.
//
// # A request's way
//
//  1. While nothing is amiss, which one atomic load tells, it goes straight to
//     the Device below, and its success straight back.
//  2. It failed in a way that the [Policy] is for, or others did and wait
//     already: it joins the queue of the outage (wait.go) without touching the
//     storage.
//  3. The first in the queue, and nobody else, tries anew when the back-off has
//     passed. When the storage fails again, it goes to the end, and the next one
//     waits for a back-off twice as long.
//  4. When the storage answers, the outage is over and all go on at once.
//
// There are two outages, with a queue each. The storage is *away* (kind
// Transient): everything waits. It is *full* (kind NoSpace, where the policy
// says so): writes, zeroing and resizing wait; reads, flushes and discards, which
// may make room, go on.
//
// # What repeating means
//
// A write that failed may have reached the medium in part. It is repeated with
// the same bytes at the same place, so p must stay the caller's, unchanged, until
// the call returns, as the contract of a Device says anyway. A newer write to the
// same place that overtakes it was in flight at the same time, and such requests
// have no order.
//
// A flush is repeated only where it failed with kind Transient: a Device below
// that may have lost writes has to say something else (IO), now and not only the
// first time, since a flush that is repeated must not make good what is gone. Of
// flushes that wait at the same time one may be the only one to be told of a
// loss: the others then fail with it, too.
//
// # Concurrency
//
// Device.mu guards policy, outages, queues and frozen; the bits of Device.state
// follow them. It is held neither while a request waits nor during a call of the
// Device below. Device.telling makes calls of Config.Changed come one after the
// other and is taken before mu. The package starts no goroutine: who is held
// waits in the caller's. Close sends them home and waits for them.
//
// # What vanishes
//
// Writes that never wait, since here they do; and every power that this package
// does not know.
package hold

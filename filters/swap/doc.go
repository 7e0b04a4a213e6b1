// Package swap lets a Device be exchanged for another while clients use it. The
// gateway puts it on top of each export's stack; snapshots, resizing and
// migration rest on it.
//
// # A call's way
//
// A call enters the current generation (one atomic addition), goes to its Device
// and leaves. An exchange begins by closing the generation's gate: calls that
// arrive wait, those inside are waited for. Then the Device is flushed, the
// caller says what comes next, a new generation with that is made current, and
// the waiting calls go on there. Nothing fails and nothing is lost: a call runs
// on one Device from beginning to end, and all writes that were completed before
// are durable when the next Device comes into play.
//
// An exchange that fails or is given up goes back to the Device that was there.
//
// # Pinned ranges
//
// A range that is pinned (for sendfile to a client that may read slowly) does not
// keep an exchange waiting. It belongs to a read that began before; until it is
// given back its bytes stay what they were in the old Device, which is all that a
// read at the same time as a write is promised. Only closing the old Device waits
// for it, in the background.
//
// # What Info says
//
// Exporters and filters look once at what is below them, so every power is there
// from the beginning and stays, whatever Devices come. Where the current one does
// not have it, it is made up for: zeroes are written, FUA is followed by a flush, a
// discard is ignored, everything is data, no range can be pinned. What cannot be
// made up for (read-only, whole blocks, shorter requests, fewer bytes, clients over
// several connections) makes an exchange fail with Invalid.
//
// # Locks and goroutines
//
// Device.mu is held by the one exchange, resize or close at a time, while it
// waits and while Devices below are called. Device.pins.mu is a leaf, held for
// some instructions. Goroutines that wait for a gate or close an old Device are
// the Device's own; Close waits for them.
package swap

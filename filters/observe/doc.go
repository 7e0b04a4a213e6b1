// Package observe tells what passes a Device: an [Observer] of each operation,
// for metrics, and a log of those that take long. The gateway puts one around
// each layer whose time is of interest.
//
// # A request's way
//
//  1. The clock is read, and, while slow requests are looked for, the request is
//     noted in a slot of a fixed table (slots.go).
//  2. It goes to the Device below and comes back as it is.
//  3. The clock is read again; the Observer is told; the slot is free.
//  4. A request that took long is logged (slow.go). One that is still under way
//     when its time is up is found in the table by a timer and logged then, so that
//     storage that hangs shows while it does.
//
// Reads that must not wait have no slot, and count only when they were answered.
// A pinned range is moved by the kernel, when and how fast nobody here can see:
// its bytes are told apart from requests. Resizing is watched, but not told of.
//
// # Cost
//
// Two readings of the clock, and with slow requests looked for one
// compare-and-swap and some stores in a part of the table that other processors
// rarely use at the same time. Nothing is allocated.
//
// # Concurrency
//
// The slots are atomics. watch.mu guards what is said about slow requests and
// the timer. The timer runs only while there are requests; its function is the
// only goroutine of the package, and Close waits for it.
//
// Every power of the Device below that this package knows passes on.
package observe

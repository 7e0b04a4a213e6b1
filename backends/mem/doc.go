// Package mem is a Device in RAM, for tests, benchmarks and scratch disks:
// mem://SIZE. Each Open makes a new one that reads as zeroes; its bytes are
// gone with Close.
//
// # Memory
//
// Bytes lie in chunks of 64 KiB that appear with the first write into them, so
// that a large disk costs nothing until it is written. A chunk that is zeroed
// as a whole goes away again and is remembered as reserved (zero, but no hole);
// one that is discarded becomes a hole.
//
// # Concurrency
//
// The chunk table is read without a lock: every slot is an atomic pointer, and
// who finds no chunk installs one by compare-and-swap. A chunk's bytes are
// guarded by its own lock. A table of chunks is added, and the directory of
// tables replaced, under Device.grow. Device.gate counts the calls, so that
// Close can wait for them. The package starts no goroutine.
package mem

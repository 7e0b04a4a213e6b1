// Package blocktest proves Devices: a conformance suite that every
// [block.Device] of the project runs, and the fakes that tests put in place of
// one.
//
//   - [Suite] runs a table of checks and a random-operation model test against
//     a Device; a test of a backend, format or filter fills it in and calls Run.
//   - [CrashDevice] is a Device in memory with a volatile cache that a test can
//     cut the power of; [Durability] remembers what was promised to survive
//     that and checks it; [EveryCrash] goes through all points of a piece of
//     work.
//   - [FaultDevice] puts errors and waits that a test scripts before and after
//     the calls of another Device.
//
// # Random choices
//
// The checks draw from fixed seeds, and try few sequences, so that a run is short
// and always the same. The environment lets them look further:
//
//	BLOCKTEST_SEED=N    draw from N instead, a number below 2^32; a check that is
//	                    repeated by -count draws from N+1 the next time, and so on
//	BLOCKTEST_CHECKS=N  try N sequences of random operations (20) and N crashes (12)
//
// A check that fails prints the seed to repeat it with. "make soak" runs all
// suites with a seed that it draws and prints. The random-operation test uses
// rapid, whose defaults importing this package sets for the whole test binary;
// its own flags and environment (-rapid.checks, RAPID_SEED) work as well, but
// BLOCKTEST_SEED goes before a seed given by these.
//
// Goroutines that a check starts end before the check does. CrashDevice,
// Durability, FaultDevice and the injectors start none; each guards its state
// with a lock of its own, which is not held during a call into another Device.
// (CrashDevice has a second lock that its calls share, so that Close waits.)
package blocktest

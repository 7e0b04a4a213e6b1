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
// The random-operation test uses rapid. Importing this package sets rapid's
// defaults for the test binary to few checks from a fixed seed and to no fail
// files, so that a run is short and always the same. To look further:
//
//	go test ./backends/mem -run Suite -rapid.checks=5000 -rapid.seed=0
//
// (seed 0 draws a new seed each time; a failure prints the one to repeat it
// with). The environment's RAPID_CHECKS and RAPID_SEED work as well.
//
// Goroutines that a check starts end before the check does. CrashDevice,
// Durability, FaultDevice and the injectors start none; each guards its state
// with a lock of its own, which is not held during a call into another Device.
// (CrashDevice has a second lock that its calls share, so that Close waits.)
package blocktest

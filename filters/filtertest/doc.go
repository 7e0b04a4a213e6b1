// Package filtertest proves filters: it holds what the tests of all of them put
// below a filter, and runs the conformance suite of package blocktest around it.
//
//   - [Ways] says how a filter is put on a Device, once for each setting that a
//     suite is to run with; its methods run the suite on RAM, on a Device without
//     powers, on a file, and over power cuts, and compare what reads cost.
//   - [Powers] and [Reach] prove what becomes of each power of the Device below,
//     [NoAllocations] what requests cost.
//   - [Full], [Poor] and [ReadOnly] are Devices with all powers, none, and none
//     to write.
//
// Tests call it and nothing else does. It starts no goroutines. A Device that is
// made here belongs to the test that asked for it, which closes it, or what is
// around it, itself; the functions that prove something close what they were given.
package filtertest

// Package fault makes a Device fail by rules: for tests, and for admins who want
// to see what their guests do in an outage before one comes. The rules can be
// changed while the Device is used, and are text (see [Parse]), so that they can
// stand on a command line.
//
// # A call's way
//
// Without rules a call reads one atomic word and goes on. Otherwise:
//
//  1. What the Device below refuses anyway (range, flags, read-only), and what is
//     empty, goes there at once: a rule does not make a bad call a good one.
//  2. The rules are looked at in order. Those whose call, range, time, number and
//     probability fit fire; the first to do so counts, and no other.
//  3. Where the rule says so, the call waits: for a time, or until the rule is
//     taken away. If the rules change meanwhile, it begins anew with the new ones.
//  4. The call fails, is torn or is dropped; or goes on, if the rule only made it
//     wait.
//
// A call that fails by "error" has not reached the Device below: the content is
// as it was. One that is torn has written a prefix and fails; one that is dropped
// has done nothing and succeeds.
//
// # Concurrency
//
// The rules are a set that SetRules replaces as a whole, by one atomic pointer;
// its mutex guards their counts and random choices while a call is judged, and is
// not held while one waits or is below. The choices follow from the seeds and
// from the order in which calls come. The package starts no goroutine. Close ends
// all waiting, with Closed.
//
// # What vanishes
//
// Writes that never wait, and every power that this package does not know. While
// there are rules no file range is pinned, since what moves through it would pass
// them by; and while there are rules for reads, ReadNowait leaves all to ReadAt.
// A range that was pinned before stays pinned.
package fault

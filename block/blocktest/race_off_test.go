//go:build !race

package blocktest

// raceDetector tells whether the race detector runs; mutants that race by nature
// would fail the whole test then.
const raceDetector = false

//go:build race

package unstable

const raceEnabled = true

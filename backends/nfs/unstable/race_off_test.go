//go:build !race

package unstable

const raceEnabled = false

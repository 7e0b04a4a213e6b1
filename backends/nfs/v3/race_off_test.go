//go:build !race

package v3

const raceEnabled = false

//go:build !race && !invariants

package buffer

const invariants = false

// Package config reads the daemon's TOML file. The daemon calls it at its start
// and when it is asked to reload.
//
// It is strict: a key that is not known, a value of the wrong type, a value that
// makes no sense and an export that is there twice are errors of kind Invalid,
// one line each, which names the file, the line and the key. Nothing is opened
// or looked up while the file is checked.
//
// A file is read in this order, and the first thing that is wrong is told:
//
//	known           document.go: syntax; every key has a place in the structure, and its value the type
//	decoded         go-toml: nothing is given twice; into a Config that holds the defaults
//	makes sense     check.go: values, and how they go together
//
// Keys that are not known never reach the second stage, which would compare each
// of them with all others.
//
// The package starts no goroutine and holds no state.
package config

// Package block is the seam of the project: what a disk is. Backends (where
// bytes come from), formats and filters provide a [Device]; exporters (NBD,
// FUSE) serve one. It imports nothing else of the project.
//
// The core of a Device has five methods. Everything more is a small optional
// interface whose presence is told once, at open, in [Info].Caps; an exporter
// calls [Resolve] when it takes a Device over and then works with the
// [Resolved] value alone.
//
// A [Store] holds many images under names.
//
// Errors are of type [Error] and have a [Kind]; the tables from kinds to NBD
// errors and to errno are in one place each (nbd/errors.go and this package).
//
// The package starts no goroutine and holds no lock.
package block

// Package xdr encodes and decodes the External Data Representation of RFC 4506, as
// far as ONC RPC and NFS need it: big-endian integers of four and eight bytes, and
// opaque data padded to four.
//
// Encoding appends to a slice. Decoding is a [Reader] that checks every length
// against what is there and never allocates, so that a hostile server decides about
// nothing. There is no reflection and no description of types: protocols say in code
// what comes after what.
//
// The package holds no state.
package xdr

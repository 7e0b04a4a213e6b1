// Package imagecopy copies the content of one Device to another: sparse-aware,
// with many requests in flight and bounded memory. The copy command calls it,
// and so will everything else that moves whole images.
//
// [Copy] moves the bytes. [Stage] gives a new image in a store a name only when
// it is whole, so that a copy that was cut off never looks like a good one.
//
// A Copy owns one goroutine that walks the source's extents and as many workers
// as requests may be in flight, each with one buffer; it returns when all have
// ended. Copy does not close the devices.
package imagecopy

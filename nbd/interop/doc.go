// Package interop proves the NBD server by clients that were written elsewhere:
// libnbd's tools and its Python binding, QEMU's tools, fio. It holds tests only;
// they carry the build tag interop, because they need those programs, and fail
// when one is missing. The servers run in the test's process, but for the tests
// that kill them.
package interop

// Package lab starts what tests, the demo and the benchmarks need around
// Sluice: the sluice binary itself, other servers (NFS among them) and clients as
// processes, certificates, loop devices, and a small virtual machine that boots from an
// NBD socket or a file. Tests call it; nothing that is shipped does.
//
// Everything is started through a [TB], which every *testing.T is, and is taken
// down by its Cleanup: no process, socket, loop device or folder outlives the
// test. A missing program fails the test and names the package to install
// ([Need]); nothing is ever skipped.
//
// There are two NFS servers: nfs-ganesha ([NFS]), quick to start and to kill, and the
// kernel's own in a guest ([KernelNFS]), slow, but with CLONE and COPY, and with real
// power cuts. A [Cutter] stands between a client and a server
// and fails as networks do.
//
// A [ServiceManager] stands in for systemd and owns one goroutine, which reads what
// its service reports and ends with the test.
//
// A [Proc] owns three goroutines: one that started the process and waits for
// it, on a thread of its own so that the kernel kills the process should the
// test binary die, and two that copy its output. Stop and Wait return after all
// three are done.
package lab

// TB is the part of testing.TB that the lab uses, so that programs which are no
// tests can use the lab as well. Fatalf must not return.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Failed() bool
	TempDir() string
}

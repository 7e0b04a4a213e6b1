package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	statFlags   = 6  // fields of /proc/PID/stat, counted from the state on
	statSignals = 28 // those pending for the thread
	exiting     = 4  // PF_EXITING
)

// dying reports whether a thread is being killed: SIGKILL is pending for it, which
// is also how the kernel ends the threads of a process that another deadly signal
// hit; or a signal that dumps core is, which it takes when it gets its answer; or it
// is closing its files on its way out. The files that are asked wait for none of the
// process' locks.
func dying(pid uint32) bool {
	if pid == 0 {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil { // it is gone, or not ours to see
		return false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= statSignals {
		return false
	}
	flags, err1 := strconv.ParseUint(string(fields[statFlags]), 10, 64)
	pending, err2 := strconv.ParseUint(string(fields[statSignals]), 10, 64)
	if err1 != nil || err2 != nil {
		return false
	}
	return flags&exiting != 0 || pending&(1<<(unix.SIGKILL-1)) != 0 || dumping(pid)
}

// cores are the signals whose default is to dump core.
const cores = 1<<(unix.SIGQUIT-1) | 1<<(unix.SIGILL-1) | 1<<(unix.SIGTRAP-1) | 1<<(unix.SIGABRT-1) | 1<<(unix.SIGBUS-1) |
	1<<(unix.SIGFPE-1) | 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGXCPU-1) | 1<<(unix.SIGXFSZ-1) | 1<<(unix.SIGSYS-1)

// dumping reports whether a thread has a signal waiting that ends its process with a
// core dump, and that nobody else takes: other threads of the process would begin to
// dump, and that makes SIGKILL pending for this one. A debugger may take it away.
func dumping(pid uint32) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	number := func(name string, base int) uint64 {
		_, rest, _ := bytes.Cut(text, []byte("\n"+name+":"))
		value, _, _ := bytes.Cut(rest, []byte("\n"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), base, 64)
		if err != nil {
			return 0
		}
		return n
	}
	pending := (number("SigPnd", 16) | number("ShdPnd", 16)) & cores
	kept := number("SigBlk", 16) | number("SigIgn", 16) | number("SigCgt", 16)
	return pending&^kept != 0 && number("Threads", 10) == 1 && number("TracerPid", 10) == 0
}

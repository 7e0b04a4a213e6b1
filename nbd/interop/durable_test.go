//go:build interop

package interop

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/lab"
)

// The image of a killed server is read through the page cache, which survives
// it. That what was promised would survive a power cut too is seen from the
// system calls.

// tracedCall is a system call as strace tells it.
type tracedCall struct {
	text       string // name, arguments and result
	begin, end int    // lines of the trace
}

// readTrace puts together what other threads' calls have interrupted.
func readTrace(t *testing.T, path string) []tracedCall {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var calls []tracedCall
	open := make(map[string]tracedCall)
	for i, line := range strings.Split(string(text), "\n") {
		thread, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		if begun, ok := strings.CutSuffix(rest, "<unfinished ...>"); ok {
			open[thread] = tracedCall{text: begun, begin: i}
		} else if _, more, ok := strings.Cut(rest, " resumed>"); ok {
			calls = append(calls, tracedCall{open[thread].text + more, open[thread].begin, i})
		} else {
			calls = append(calls, tracedCall{rest, i, i})
		}
	}
	return calls
}

// TestDurableBeforeItIsPromised: the reply to a flush leaves after a successful
// fdatasync that began after the reply before it; so does the reply to a request
// with FUA, or after a write that the kernel was told to make durable.
func TestDurableBeforeItIsPromised(t *testing.T) {
	lab.Need(t, "strace", "nbdsh")
	trace := filepath.Join(t.TempDir(), "trace")
	socket := lab.Socket(t)
	cmd := exec.Command("strace", "-f", "-qq", "-xx", "-s", "64", "-o", trace,
		"-e", "trace=fdatasync,fsync,pwritev2,write,writev,sendto,sendmsg", os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+socket+" "+emptyImage(t, 64*mib))
	server := lab.StartCmd(t, cmd)
	server.Ready()
	answered := answeredBy(t, lab.Run(t, "/usr/bin/python3", "testdata/durable.py", socket))
	var calls []tracedCall
	server.Until("the trace of the last reply", func() bool {
		calls = readTrace(t, trace)
		_, told := replyTo(calls, uint64(len(answered)))
		return told
	})
	server.Kill9()
	replied := 0 // the line of the reply before
	for i, what := range answered {
		reply, ok := replyTo(calls, uint64(i+1))
		if !ok {
			t.Fatalf("no reply to request %d", i+1)
		}
		durable := slices.ContainsFunc(calls, func(c tracedCall) bool {
			return c.begin > replied && c.end < reply.begin && makesDurable(c.text)
		})
		if durable != (what != "write") {
			t.Errorf("%s was answered; something made durable before: %v", what, durable)
		}
		replied = reply.begin
	}
}

// answeredBy lists the requests that testdata/durable.py says were answered; their
// cookies count from one.
func answeredBy(t *testing.T, output string) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(output) {
		var what string
		var cookie int
		if _, err := fmt.Sscan(line, &what, &cookie); err != nil || cookie != len(list)+1 {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, what)
	}
	if len(list) != 7 {
		t.Fatalf("answered: %v", list)
	}
	return list
}

// replyTo finds the call that sends the reply to a request: magic, no error, cookie.
func replyTo(calls []tracedCall, cookie uint64) (call tracedCall, ok bool) {
	reply := binary.BigEndian.AppendUint64([]byte{0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0}, cookie)
	var told strings.Builder // as strace -xx does
	for _, b := range reply {
		fmt.Fprintf(&told, `\x%02x`, b)
	}
	i := slices.IndexFunc(calls, func(c tracedCall) bool { return strings.Contains(c.text, told.String()) })
	if i < 0 {
		return tracedCall{}, false
	}
	return calls[i], true
}

// makesDurable reports whether a call has made something durable.
func makesDurable(call string) bool {
	_, result, _ := strings.Cut(call, ") ")
	result = strings.TrimSpace(result)
	switch name, _, _ := strings.Cut(call, "("); name {
	case "fdatasync", "fsync":
		return result == "= 0"
	case "pwritev2":
		return strings.Contains(call, "RWF_DSYNC") && !strings.HasPrefix(result, "= -")
	}
	return false
}

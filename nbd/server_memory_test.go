package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// What connections cost in memory: bounds that hold whatever clients do.

// liveMemory is what the process holds after a collection, stacks included.
func liveMemory() int64 {
	runtime.GC()
	runtime.GC() // pools give up what they keep at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestServerUnreadReplies: a client that sends and never reads is not received
// from any more when its replies take up ServerConfig.MaxBytes. The bound is
// twice that (buffers come in powers of two) and a constant for the connection,
// its workers and their lists of extents.
func TestServerUnreadReplies(t *testing.T) {
	const maxBytes, constant = 8 << 20, 4 << 20
	bitmaps := make([]string, 60)
	for i := range bitmaps {
		bitmaps[i] = fmt.Sprint("bitmap", i)
	}
	for name, test := range map[string]struct {
		caps block.Cap
		req  rawRequest
		mode rawMode
	}{
		"small reads at hand":    {block.CapNowait, rawRequest{cmd: rCmdRead, length: 4096}, simple},
		"small reads by workers": {0, rawRequest{cmd: rCmdRead, length: 4096}, structured},
		"large reads at hand":    {block.CapNowait, rawRequest{cmd: rCmdRead, length: 1 << 20}, structured},
		"large reads by workers": {0, rawRequest{cmd: rCmdRead, length: 3 << 20}, extended},
		"errors":                 {0, rawRequest{cmd: 99}, structured},
		"device errors":          {0, rawRequest{cmd: rCmdCache, offset: 1 << 20, length: 1}, structured},
		"writes":                 {0, rawRequest{cmd: rCmdWrite, payload: pattern(64<<10, 1)}, structured},
		"flushes":                {0, rawRequest{cmd: rCmdFlush}, simple},
		"status of 62 contexts":  {block.CapBitmaps, rawRequest{cmd: rCmdStatus, length: 4 << 20}, extended},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(4<<20, diskCaps|test.caps)
			d.nowait, d.bitmaps = true, bitmaps
			s := serveWith(t, nbd.ServerConfig{MaxBytes: maxBytes}, &nbd.Export{Device: d}, &nbd.Export{Name: "victim", Device: newMem(t, 1<<20)})
			c := dial(t, s.addr)
			c.negotiate(test.mode)
			if test.req.cmd == rCmdStatus {
				c.setMeta("", append([]string{qAllocation, qDepth}, prefixed(bitmaps)...)...)
			}
			c.goExport("")
			before := liveMemory()
			victim := neighbour(t, s.addr, "victim")
			sent := c.flood(test.req, 512<<20)
			victim.stop(t)
			grown := liveMemory() - before
			t.Logf("%d bytes sent, %d bytes held", sent, grown)
			if grown > 2*maxBytes+constant {
				t.Errorf("server holds %d bytes, more than %d", grown, 2*maxBytes+constant)
			}
		})
	}
}

func prefixed(names []string) []string {
	var all []string
	for _, n := range names {
		all = append(all, "qemu:dirty-bitmap:"+n)
	}
	return all
}

// flood sends one request over and over until the server takes no more, and
// returns how many bytes it took.
func (c *rawClient) flood(req rawRequest, limit int) int {
	c.t.Helper()
	one, _ := c.encode(req)
	p := bytes.Repeat(one, max(1, 64<<10/len(one)))
	for sent := 0; sent < limit; {
		_ = c.conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.conn.Write(p)
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return sent
		}
		if err != nil {
			c.t.Fatalf("send: %v", err)
		}
	}
	c.t.Fatalf("server took %d bytes of requests whose replies nobody reads", limit)
	return 0
}

// TestServerLargePayloadInSmallBudget: one request of the largest size is always
// possible, also while another is under way.
func TestServerLargePayloadInSmallBudget(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(4<<20, diskCaps)
		release := make(chan struct{})
		d.before = func(c call) error {
			if c.op == "read" && c.n == 4096 {
				<-release
			}
			return nil
		}
		s := serveWith(t, nbd.ServerConfig{MaxBytes: 1 << 20, MaxRequests: 2}, &nbd.Export{Device: d})
		c := enter(t, s.addr, mode, "")
		small := c.start(rawRequest{cmd: rCmdRead, length: 4096})
		waitFor(t, "the read", func() bool { return len(d.took("read")) == 1 })
		p, large := c.encode(rawRequest{cmd: rCmdWrite, payload: pattern(4<<20, 1)})
		_ = c.conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.conn.Write(p)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("server took the write beside the read: %v", err)
		}
		close(release)
		c.mustOK(c.finish(small, rawRequest{cmd: rCmdRead, length: 4096}))
		c.send(p[n:])
		c.mustOK(c.finish(large, rawRequest{}))
		mustEqual(t, c.mustOK(c.read(0, 4<<20)).data, pattern(4<<20, 1), "read")
	})
}

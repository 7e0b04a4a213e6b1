package nbd_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// Fuzz targets: whatever bytes a client sends, the server ends the connection
// when the client has, does not panic, and asks the device for nothing out of
// range. Corpora are in testdata/fuzz.

// pipe is one direction of a connection in memory. The reader gets what is
// there; at the end io.EOF.
type pipe struct {
	mu     sync.Mutex
	change sync.Cond
	data   []byte
	closed bool
}

func newPipe() *pipe {
	p := new(pipe)
	p.change.L = &p.mu
	return p
}

func (p *pipe) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.change.Broadcast()
}

// fuzzConn is the server's end of a connection whose client has said all it has
// to say. What the server answers is counted and thrown away.
type fuzzConn struct {
	in      *pipe
	written int
}

func (c *fuzzConn) Read(b []byte) (int, error) {
	p := c.in
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.data) == 0 && !p.closed {
		p.change.Wait()
	}
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data)
	p.data = p.data[n:]
	return n, nil
}

func (c *fuzzConn) Write(b []byte) (int, error) {
	c.written += len(b)
	return len(b), nil
}

func (c *fuzzConn) Close() error                     { c.in.close(); return nil }
func (c *fuzzConn) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "fuzz", Net: "unix"} }
func (c *fuzzConn) RemoteAddr() net.Addr             { return c.LocalAddr() }
func (c *fuzzConn) SetDeadline(time.Time) error      { return nil }
func (c *fuzzConn) SetReadDeadline(time.Time) error  { return nil }
func (c *fuzzConn) SetWriteDeadline(time.Time) error { return nil }

// fuzzServer serves a small disk as "x" and as the default export.
func fuzzServer(f *testing.F) *nbd.Server { return fuzzServerOf(f, nbd.ServerConfig{}) }

func fuzzServerOf(f *testing.F, cfg nbd.ServerConfig) *nbd.Server {
	exports := new(nbd.Exports)
	for _, name := range []string{"", "x"} {
		d := &strictDisk{newDisk(1<<20, diskCaps|block.CapBitmaps|block.CapNowait)}
		d.nowait, d.bitmaps = true, []string{"monday"}
		d.extents = layout(block.Extent{Len: 256 << 10, Depth: 1}, block.Extent{Len: 768 << 10, State: hole})
		if err := exports.Add(&nbd.Export{Name: name, Description: "a disk", Device: d}); err != nil {
			f.Fatal(err)
		}
	}
	cfg.Catalog, cfg.Workers, cfg.MaxRequests = exports, 4, 8
	s := nbd.NewServer(cfg)
	f.Cleanup(func() { _ = s.Close() })
	return s
}

// strictDisk panics when it is asked for what the server has to refuse.
type strictDisk struct{ *disk }

func (d *strictDisk) WriteAt(_ context.Context, p []byte, off int64, _ block.Flags) error {
	if off < 0 || off+int64(len(p)) > d.info.Size || len(p) == 0 {
		panic("write out of range")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[off:], p)
	return nil
}

// Info is asked once for each connection: a good time to forget the last one.
func (d *strictDisk) Info() block.Info { d.forget(); return d.disk.Info() }

// converse lets the server answer a client that says script.
func converse(s *nbd.Server, script []byte) {
	c := &fuzzConn{in: newPipe()}
	c.in.data, c.in.closed = script, true
	_ = s.ServeConn(c)
}

func FuzzServerHandshake(f *testing.F) {
	s := fuzzServer(f)
	for _, mode := range allModes {
		script, _ := conversation(mode)
		f.Add(script)
		f.Add(script[:len(script)/2])
	}
	f.Add(cat(be32(0), optHeader(rOptExportName, 1), []byte("x")))
	f.Add(cat(be32(1), optHeader(rOptExportName, 0)))
	f.Add(cat(be32(3), optHeader(rOptSetMeta, 0xffffffff)))
	f.Add(cat(be32(3), optHeader(rOptStructured, 0), optHeader(rOptSetMeta, 8), be32(0xffffffff), be32(0xffffffff)))
	f.Fuzz(func(_ *testing.T, script []byte) { converse(s, script) })
}

// greetings are good handshakes that end in the transmission.
func greetings() map[rawMode][]byte {
	all := make(map[rawMode][]byte)
	for _, mode := range allModes {
		p := be32(3)
		opt := func(opt uint32, data []byte) { p = append(p, cat(optHeader(opt, uint32(len(data))), data)...) }
		switch mode {
		case structured:
			opt(rOptStructured, nil)
		case extended:
			opt(rOptExtended, nil)
		}
		if mode != simple {
			opt(rOptSetMeta, metaData("x", qAllocation, qDepth, "qemu:dirty-bitmap:monday"))
		}
		opt(rOptGo, infoData("x"))
		all[mode] = p
	}
	return all
}

// requests seeds a target with one of every request.
func seedRequests(f *testing.F, mode rawMode) {
	c := &rawClient{mode: mode, reads: map[uint64]uint32{}}
	var all []byte
	for cmd := range uint16(10) {
		for _, flags := range []uint16{0, rFlagFUA, rFlagDF, rFlagReqOne | rFlagFUA, rFlagNoHole | rFlagFastZero, rFlagPayload} {
			req := rawRequest{flags: flags, cmd: cmd, offset: 512 << 8, length: 70000}
			switch {
			case cmd == rCmdWrite:
				req.payload = pattern(100, 1)
			case cmd == rCmdDisc || cmd == rCmdFlush:
				req.offset, req.length = 0, 0
			case flags&rFlagPayload != 0:
				req.payload = cat(be64(4096), be32(1), be32(3))
			}
			p, _ := c.encode(req)
			f.Add(p)
			if cmd != rCmdDisc {
				all = append(all, p...)
			}
		}
	}
	f.Add(all)
	p, _ := c.encode(rawRequest{cmd: rCmdWrite, length: 0xffffffff})
	f.Add(p)
}

func FuzzServerRequests(f *testing.F) {
	s, before := fuzzServer(f), greetings()
	seedRequests(f, structured)
	f.Fuzz(func(_ *testing.T, script []byte) {
		converse(s, cat(before[simple], script))
		converse(s, cat(before[structured], script))
	})
}

func FuzzServerRequestsExtended(f *testing.F) {
	s, before := fuzzServer(f), greetings()
	seedRequests(f, extended)
	f.Fuzz(func(_ *testing.T, script []byte) { converse(s, cat(before[extended], script)) })
}

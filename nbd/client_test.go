package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/block"
	"sluice/block/blocktest"
)

var background = context.Background()

// modes are the three forms of replies, by what the server leaves out.
var fakeModes = map[string]func(*fakeServer){
	"simple":     func(s *fakeServer) { s.noStructured, s.noExtended = true, true },
	"structured": func(s *fakeServer) { s.noExtended = true },
	"extended":   func(s *fakeServer) {},
}

func TestClientConformance(t *testing.T) {
	for name, mode := range fakeModes {
		blocktest.Suite{Name: name, Open: func(t testing.TB) block.Device {
			s := newFakeServer(t.(*testing.T), blocktest.MinSize)
			mode(s)
			c := s.start().dial(ClientConfig{})
			if got := c.ExportInfo().Headers; got != name {
				t.Fatalf("replies are %s", got)
			}
			return c
		}}.Run(t)
	}
}

func TestClientOldServers(t *testing.T) {
	cases := map[string]func(*fakeServer){
		"no GO":               func(s *fakeServer) { s.noGo, s.noExtended = true, true },
		"no GO, zeroes":       func(s *fakeServer) { s.noGo, s.zeroes, s.noExtended = true, true, true },
		"newstyle, not fixed": func(s *fakeServer) { s.plain = true },
		"with zeroes":         func(s *fakeServer) { s.plain, s.zeroes = true, true },
	}
	for name, set := range cases {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			set(s)
			c := s.start().dial(ClientConfig{})
			roundTrip(t, c)
		})
	}
}

// roundTrip writes and reads back.
func roundTrip(t *testing.T, c *Client) {
	t.Helper()
	want := bytes.Repeat([]byte("sluice"), 1000)
	if err := c.WriteAt(background, want, 512, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := c.ReadAt(background, got, 512); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("read other bytes than were written")
	}
}

func TestClientHandshakeErrors(t *testing.T) {
	refuse := func(opt option, typ optionReply, text string) func(*fakeServer) {
		return func(s *fakeServer) {
			s.option = func(c *fakeConn, o option, _ []byte) bool {
				if o == opt {
					c.reply(o, typ, []byte(text))
				}
				return o == opt
			}
		}
	}
	oldstyle := be.AppendUint64(be.AppendUint64(nil, magicNBD), clientOldstyleMagic)
	cases := map[string]struct {
		set  func(*fakeServer)
		kind block.Kind
		text string
	}{
		"unknown export": {refuse(optGo, repErrUnknown, "no disk\nhere"), block.NotFound, "no such export: no disk here"},
		"policy":         {refuse(optGo, repErrPolicy, ""), block.Permission, "policy"},
		"TLS wanted":     {refuse(optGo, repErrTLSRequired, ""), block.Permission, "requires TLS (nbds)"},
		"TLS for all":    {refuse(optExtendedHeaders, repErrTLSRequired, ""), block.Permission, "requires TLS (nbds)"},
		"shutting down":  {refuse(optGo, repErrShutdown, ""), block.Transient, "shutting down"},
		"unknown error":  {refuse(optGo, repError|99, "odd"), block.IO, "error 99: odd"},
		"odd answer":     {refuse(optGo, repServer, "1234"), block.IO, "broke the NBD protocol"},
		"no export info": {refuse(optGo, repAck, ""), block.IO, "without its size"},
		"long answer":    {refuse(optGo, repInfo, strings.Repeat("x", clientMaxOptionReply+1)), block.IO, "answer of"},
		"short info":     {refuse(optGo, repInfo, "\x00\x00abc"), block.IO, "export information of 3 bytes"},
		"odd block size": {func(s *fakeServer) { s.blockSize = [3]uint32{3, 4096, 1 << 20} }, block.IO, "minimum block size 3"},
		"tiny payload":   {func(s *fakeServer) { s.blockSize = [3]uint32{512, 4096, 100} }, block.IO, "maximum payload 100"},
		"odd size":       {func(s *fakeServer) { s.blockSize = [3]uint32{4096, 4096, 1 << 20}; s.size -= 512 }, block.Unsupported, "no multiple"},
		"huge":           {func(s *fakeServer) { s.size = -1 }, block.Unsupported, "too large"},
		"no flags":       {func(s *fakeServer) { s.flags = 0 }, block.IO, "HAS_FLAGS"},
		"not NBD":        {func(s *fakeServer) { s.greeting = []byte("HTTP/1.1 400 Bad Request\r\n") }, block.IO, "not an NBD server"},
		"oldstyle":       {func(s *fakeServer) { s.greeting = append(oldstyle, 0, 0) }, block.Unsupported, "oldstyle"},
		"wrong contexts": {func(s *fakeServer) { s.contexts = []string{"x-other:thing"} }, block.IO, "of which 0 were asked for"},
		"too many":       {func(s *fakeServer) { s.contexts = []string{"a:a", "b:b", "c:c"} }, block.IO, "metadata context of"},
		"same contexts":  {func(s *fakeServer) { s.contexts = []string{"a:a", "a:a"} }, block.IO, "not distinct"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			tc.set(s)
			_, err := s.start().tryDial(ClientConfig{})
			wantKind(t, err, tc.kind)
			if !strings.Contains(err.Error(), tc.text) || strings.ContainsRune(err.Error(), '\n') {
				t.Fatalf("%q lacks %q", err, tc.text)
			}
		})
	}
}

func TestClientDialNobody(t *testing.T) {
	_, err := Dial(background, "nbd+unix:///x?socket="+t.TempDir()+"/none", ClientConfig{})
	wantKind(t, err, block.NotFound)
	_, err = Dial(background, "nbd://127.0.0.1:1/x", ClientConfig{})
	wantKind(t, err, block.Transient)
}

// TestClientDialSilentServer: neither the context nor the timeout is waited past.
func TestClientDialSilentServer(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.greeting = []byte{'N'}
	s.start()
	ctx, cancel := context.WithCancel(background)
	cancel()
	_, err := Dial(ctx, s.uri(), ClientConfig{})
	wantKind(t, err, block.Canceled)
	_, err = s.tryDial(ClientConfig{DialTimeout: 1e8})
	wantKind(t, err, block.Transient)
}

// TestClientSplits: requests keep to what the server takes.
func TestClientSplits(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.blockSize = [3]uint32{512, 4096, 10000}
	var mu sync.Mutex
	longest := map[command]uint64{}
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			longest[r.cmd] = max(longest[r.cmd], r.length)
			return false
		})
	}
	c := s.start().dial(ClientConfig{})
	want := bytes.Repeat([]byte{1, 2, 3, 4}, 1<<18)
	if err := c.WriteAt(background, want, 0, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := c.ReadAt(background, got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("read other bytes than were written")
	}
	if err := c.WriteZeroes(background, 0, 1<<20, block.MayUnmap); err != nil {
		t.Fatal(err)
	}
	if err := c.Prefetch(background, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	wantKind(t, c.ReadAt(background, make([]byte, 512), 100), block.Invalid)
	mu.Lock()
	defer mu.Unlock()
	if longest[cmdRead] != 9728 || longest[cmdWrite] != 9728 || longest[cmdCache] > 10000 {
		t.Fatalf("longest requests %v", longest)
	}
	if longest[cmdWriteZeroes] != 1<<20 {
		t.Fatalf("zeroing was split without need: %v", longest)
	}
}

// TestClientFlags: each flag becomes its wire flag, and only where it is known.
func TestClientFlags(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	seen := make(chan request, 1)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool { seen <- r; return false })
	}
	c := s.start().dial(ClientConfig{NoExtended: true})
	cases := []struct {
		call  func() error
		cmd   command
		flags commandFlags
	}{
		{func() error { return c.WriteAt(background, make([]byte, 8), 0, block.FUA) }, cmdWrite, cfFUA},
		{func() error { return c.WriteZeroes(background, 0, 8, block.MayUnmap) }, cmdWriteZeroes, 0},
		{func() error { return c.WriteZeroes(background, 0, 8, 0) }, cmdWriteZeroes, cfNoHole},
		{func() error { return c.WriteZeroes(background, 0, 8, block.FUA|block.FastOnly|block.MayUnmap) }, cmdWriteZeroes, cfFUA | cfFastZero},
		{func() error { return c.Discard(background, 0, 8, block.FUA) }, cmdTrim, cfFUA},
		{func() error { return c.Prefetch(background, 0, 8) }, cmdCache, 0},
		{func() error { return c.Flush(background) }, cmdFlush, 0},
	}
	for _, tc := range cases {
		if err := tc.call(); err != nil {
			t.Fatal(err)
		}
		if r := <-seen; r.cmd != tc.cmd || r.flags != tc.flags {
			t.Errorf("sent %+v, want command %d with flags %#x", r, tc.cmd, tc.flags)
		}
	}
}

// TestClientPowerless: what the server does not advertise is refused unsent.
func TestClientPowerless(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.flags = tfHasFlags
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			t.Errorf("request %+v", r)
			return false
		})
	}
	c := s.start().dial(ClientConfig{Connections: 4})
	if n := c.Connections(); n != 1 {
		t.Errorf("%d connections without CAN_MULTI_CONN", n)
	}
	if caps := c.Info().Caps; caps != 0 {
		t.Errorf("capabilities %v", caps)
	}
	wantKind(t, c.WriteAt(background, make([]byte, 8), 0, block.FUA), block.Invalid)
	wantKind(t, c.WriteZeroes(background, 0, 8, 0), block.Unsupported)
	wantKind(t, c.Discard(background, 0, 8, 0), block.Unsupported)
	wantKind(t, c.Prefetch(background, 0, 8), block.Unsupported)
	_, err := c.Extents(background, 0, 8, make([]block.Extent, 0, 1))
	wantKind(t, err, block.Unsupported)
	wantKind(t, c.Flush(background), block.OK)
}

func TestClientReadOnly(t *testing.T) {
	for name, set := range map[string]struct {
		flags transmissionFlags
		cfg   ClientConfig
	}{"server": {fakeFlags | tfReadOnly, ClientConfig{}}, "client": {fakeFlags, ClientConfig{ReadOnly: true}}} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			s.flags = set.flags
			c := s.start().dial(set.cfg)
			if !c.Info().ReadOnly || c.Info().Has(block.CapZero) || c.Info().Has(block.CapDiscard) {
				t.Errorf("%+v", c.Info())
			}
			wantKind(t, c.WriteAt(background, make([]byte, 8), 0, 0), block.ReadOnly)
			wantKind(t, c.WriteZeroes(background, 0, 8, 0), block.ReadOnly)
			wantKind(t, c.Discard(background, 0, 8, 0), block.ReadOnly)
		})
	}
}

// TestClientFailedSync: an error that a server answers a flush or a write with FUA
// with is no call to try again, since it may tell of lost writes only once; that
// the server ends is one, since its successor is not believed (TestClientFlushAfterCrash).
func TestClientFailedSync(t *testing.T) {
	var now atomic.Uint32
	s := newFakeServer(t, 1<<20)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			c.fail(r, wireError(now.Load()), "")
			return true
		})
	}
	c := s.start().dial(ClientConfig{})
	for code, want := range map[wireError]block.Kind{
		wireENOMEM: block.IO, wireEIO: block.IO, wireENOSPC: block.NoSpace, wireESHUTDOWN: block.Transient,
	} {
		now.Store(uint32(code))
		wantKind(t, c.Flush(background), want)
		wantKind(t, c.WriteAt(background, make([]byte, 512), 0, block.FUA), want)
		wantKind(t, c.WriteZeroes(background, 0, 512, block.FUA), want)
	}
}

// TestClientErrors: every wire error has its kind, and texts and offsets arrive.
func TestClientErrors(t *testing.T) {
	kinds := map[wireError]block.Kind{
		wireEPERM: block.Permission, wireEIO: block.IO, wireENOMEM: block.Transient, wireEINVAL: block.Invalid,
		wireENOSPC: block.NoSpace, wireENOTSUP: block.Unsupported, wireESHUTDOWN: block.Transient, 4711: block.IO,
	}
	for name, mode := range fakeModes {
		t.Run(name, func(t *testing.T) {
			var now atomic.Uint32
			s := newFakeServer(t, 1<<20)
			mode(s)
			s.serve = func(c *fakeConn) {
				c.memory(func(r request, _ []byte) bool {
					c.fail(r, wireError(now.Load()), "the\tmedium\x01 is gone")
					return true
				})
			}
			c := s.start().dial(ClientConfig{})
			for code := range kinds {
				now.Store(uint32(code))
				err := c.ReadAt(background, make([]byte, 100), 4096)
				wantKind(t, err, kinds[code])
				want := fmt.Errorf("read %s at 4096: %w", s.uri(), code).Error()
				if name != "simple" {
					want += ": the medium  is gone"
				}
				if err.Error() != want {
					t.Errorf("%q, want %q", err, want)
				}
			}
			now.Store(uint32(wireEPERM))
			wantKind(t, c.WriteAt(background, make([]byte, 100), 0, 0), block.ReadOnly)
		})
	}
}

func TestClientErrorOffset(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			p := be.AppendUint32(nil, uint32(wireEIO))
			p = append(be.AppendUint16(p, 3), "bad"...)
			c.chunk(r, chunkErrorOffset, false, be.AppendUint64(p, r.offset+512))
			c.chunk(r, chunkNone, true, nil)
			return true
		})
	}
	c := s.start().dial(ClientConfig{})
	err := c.ReadAt(background, make([]byte, 1024), 4096)
	var e *block.Error
	if !errors.As(err, &e) || e.Off != 4608 || !strings.Contains(err.Error(), "EIO: bad") {
		t.Fatal(err)
	}
}

// TestClientOutOfOrder: replies come in any order and interleaved.
func TestClientOutOfOrder(t *testing.T) {
	const requests = 32
	s := newFakeServer(t, 1<<20)
	for i := range s.data {
		s.data[i] = byte(i >> 8)
	}
	s.serve = func(c *fakeConn) {
		var all []request
		for len(all) < requests {
			r, _, err := c.next()
			if err != nil {
				return
			}
			all = append(all, r)
		}
		half := func(r request, from, to uint64, done bool) {
			p := be.AppendUint64(nil, r.offset+from)
			c.chunk(r, chunkOffsetData, done, append(p, s.data[r.offset+from:r.offset+to]...))
		}
		for i := range all {
			half(all[len(all)-1-i], 2048, 4096, false)
		}
		for _, r := range all {
			half(r, 0, 2048, true)
		}
		c.memory(nil)
	}
	c := s.start().dial(ClientConfig{})
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			p, off := make([]byte, 4096), int64(i)*8192
			if err := c.ReadAt(background, p, off); err != nil {
				t.Error(err)
			} else if !bytes.Equal(p, s.data[off:off+4096]) {
				t.Errorf("wrong bytes at %d", off)
			}
		})
	}
	within(t, "reads", wg.Wait)
}

// TestClientHoles: hole chunks become zeroes in the buffer.
func TestClientHoles(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			hole := be.AppendUint32(be.AppendUint64(nil, r.offset), uint32(r.length/2))
			c.chunk(r, chunkOffsetHole, false, hole)
			data := append(be.AppendUint64(nil, r.offset+r.length/2), bytes.Repeat([]byte{7}, int(r.length/2))...)
			c.chunk(r, chunkOffsetData, false, data)
			c.chunk(r, chunkNone, true, nil)
			return true
		})
	}
	c := s.start().dial(ClientConfig{})
	p := bytes.Repeat([]byte{9}, 100<<10)
	if err := c.ReadAt(background, p, 0); err != nil {
		t.Fatal(err)
	}
	want := append(make([]byte, 50<<10), bytes.Repeat([]byte{7}, 50<<10)...)
	if !bytes.Equal(p, want) {
		t.Fatal("wrong bytes")
	}
}

// TestClientInFlightCap: no more requests are sent than there are slots.
func TestClientInFlightCap(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.serve = func(c *fakeConn) {
		for {
			var batch []request
			for range 4 {
				r, _, err := c.next()
				if err != nil || r.cmd == cmdDisconnect {
					return
				}
				batch = append(batch, r)
			}
			for _, r := range batch {
				c.ok(r)
			}
		}
	}
	c := s.start().dial(ClientConfig{MaxInFlight: 4})
	ctx, cancel := context.WithCancel(background)
	var writers, extra sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			if err := c.WriteAt(background, make([]byte, 512), 0, 0); err != nil {
				t.Error(err)
			}
		})
	}
	for len(c.lanes[0].free) > 1 { // until the three hold their slots
		wait(t)
	}
	slot := <-c.lanes[0].free
	extra.Go(func() { wantCanceled(t, c.WriteAt(ctx, make([]byte, 512), 0, 0)) })
	cancel()
	within(t, "the one without a slot", extra.Wait)
	c.lanes[0].free <- slot
	if err := c.WriteAt(background, make([]byte, 512), 0, 0); err != nil {
		t.Fatal(err)
	}
	within(t, "writers", writers.Wait)
}

func wantCanceled(t *testing.T, err error) {
	if block.KindOf(err) != block.Canceled {
		t.Errorf("%v, want a cancelled call", err)
	}
}

package v3

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
)

// canned answers NULL, READ, WRITE and COMMIT out of memory that it has, so that what is
// allocated is the client's.
func canned(t *testing.T) *net.TCPListener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serveCanned(conn) })
		}
	})
	t.Cleanup(func() { // after the client is closed, which ends the connections
		_ = listener.Close()
		serving.Wait()
	})
	return listener.(*net.TCPListener)
}

func serveCanned(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	head := u32(0, 0, 1, 0, 0, 0, 0)
	replies := map[uint32][]byte{
		0:          head,
		procRead:   append(append(append(head[:len(head):len(head)], u32(0, 1)...), fattr()...), append(u32(4096, 0, 4096), make([]byte, 4096)...)...),
		procWrite:  append(head[:len(head):len(head)], u32(0, 0, 0, 4096, 0, 1, 2)...),
		procCommit: append(head[:len(head):len(head)], u32(0, 0, 0, 1, 2)...),
	}
	record := make([]byte, 64<<10)
	for {
		if _, err := io.ReadFull(conn, record[:4]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(record) & (1<<31 - 1)
		if _, err := io.ReadFull(conn, record[:n]); err != nil {
			return
		}
		reply := replies[binary.BigEndian.Uint32(record[20:])]
		binary.BigEndian.PutUint32(reply, 1<<31|uint32(len(reply)-4))
		copy(reply[4:8], record[:4])
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

func TestDataPathAllocatesNothing(t *testing.T) {
	port := canned(t).Addr().(*net.TCPAddr).Port
	c := dialTest(t, Config{Host: "127.0.0.1", Port: port, MountPort: port, Connections: 2, Patience: time.Second})
	f := &File{c: c, limits: remote.Limits{Read: 1 << 20, Write: 1 << 20}, closing: make(chan struct{})}
	f.handle.Store(&handle{1, 2, 3, 4})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := make([]byte, 4096)
	calls := map[string]func(){
		"read": func() {
			if n, err := f.Read(ctx, p, 0); n != 4096 || err != nil {
				t.Fatal(n, err)
			}
		},
		"write": func() {
			if w, err := f.Write(ctx, p, 0, false); w.N != 4096 || err != nil {
				t.Fatal(w, err)
			}
		},
		"commit": func() {
			if _, err := f.Commit(ctx); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, call := range calls {
		for range 2 * maxSlots { // until each slot has its memory
			call()
		}
		if n := testing.AllocsPerRun(500, call); n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// A connection comes from the port of the one before.
func TestSamePortAgain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ports := make(chan int, 2)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer func() { _ = listener.Close() }()
	serving.Go(func() {
		for range 2 {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			ports <- conn.RemoteAddr().(*net.TCPAddr).Port
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.(*net.TCPConn).SetLinger(0) // ends at once, and leaves nothing
			_ = conn.Close()
		}
	})
	c := &Client{cfg: Config{Host: "127.0.0.1", Cred: rpc.Cred{}}}
	c.cfg.normalize()
	l := &lane{c: c}
	for range 2 {
		conn, err := l.connect(t.Context(), listener.Addr().(*net.TCPAddr).Port)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(make([]byte, 1))
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if a, b := <-ports, <-ports; a != b {
		t.Errorf("from port %d, then from %d", a, b)
	}
}

package lab

import (
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

// Cutter is a TCP proxy on loopback that breaks connections when it is told to.
type Cutter struct {
	t      TB
	target string
	addr   string

	mu       sync.Mutex
	listener net.Listener // nil while it refuses
	conns    map[net.Conn]struct{}
	stalled  chan struct{} // closed unless nothing is to pass
	running  sync.WaitGroup
	made     int
}

// Cut starts a proxy in front of a server. It ends with the test.
func Cut(t TB, target string) *Cutter {
	t.Helper()
	open := make(chan struct{})
	close(open)
	c := &Cutter{t: t, target: target, addr: "127.0.0.1:0", conns: map[net.Conn]struct{}{}, stalled: open}
	c.Accept()
	t.Cleanup(func() {
		c.Refuse()
		c.Resume()
		c.Reset()
		c.running.Wait()
	})
	return c
}

// Addr is where the proxy listens.
func (c *Cutter) Addr() string { return c.addr }

// Connections is how many were made so far.
func (c *Cutter) Connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// Accept takes connections, on the same port as before.
func (c *Cutter) Accept() {
	c.t.Helper()
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		c.t.Fatalf("proxy: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addr, c.listener = l.Addr().String(), l
	c.running.Go(func() { c.serve(l) })
}

// Refuse takes no more connections: those who try are refused. Those that are there stay.
func (c *Cutter) Refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil {
		_ = c.listener.Close()
		c.listener = nil
	}
}

// Reset breaks all connections as a crash does, with RST.
func (c *Cutter) Reset() { c.cut(true) }

// Finish ends all connections in the middle of whatever is under way, with FIN.
func (c *Cutter) Finish() { c.cut(false) }

func (c *Cutter) cut(reset bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		if reset {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
	clear(c.conns)
}

// Stall lets nothing pass any more; connections stay, and new ones are taken.
func (c *Cutter) Stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = make(chan struct{})
}

// Resume ends Stall.
func (c *Cutter) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.stalled:
	default:
		close(c.stalled)
	}
}

func (c *Cutter) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.target)
		if err != nil {
			_ = client.(*net.TCPConn).SetLinger(0)
			_ = client.Close()
			continue
		}
		c.mu.Lock()
		c.made++
		c.conns[client], c.conns[server] = struct{}{}, struct{}{}
		if c.listener != l { // it refuses by now
			c.drop(client, server)
		}
		c.mu.Unlock()
		c.running.Go(func() { c.pass(client, server) })
		c.running.Go(func() { c.pass(server, client) })
	}
}

// drop closes two ends. The lock is held.
func (c *Cutter) drop(ends ...net.Conn) {
	for _, conn := range ends {
		_ = conn.Close()
		delete(c.conns, conn)
	}
}

// pass copies from one end to the other.
func (c *Cutter) pass(to io.WriteCloser, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		stalled := c.stalled
		c.mu.Unlock()
		<-stalled
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			c.mu.Lock()
			c.drop(to.(net.Conn), from)
			c.mu.Unlock()
			return
		}
	}
}

package lab

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo is a server that sends back what it gets, with a byte of its own in front of
// each connection's answers.
func echo(t *testing.T, first byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				_, _ = conn.Write([]byte{first})
				_, _ = io.Copy(conn, conn) // until it is cut
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return l.Addr().String()
}

// through connects through the proxy and reads the server's first byte.
func through(t *testing.T, c *Cutter, first byte) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, string(first))
	return conn
}

func expect(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v; want %q", got, err, want)
	}
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// silent fails unless nothing comes for some time: proof of an absence has none but time.
func silent(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ETIMEDOUT) && !isTimeout(err) {
		t.Fatalf("%d bytes, %v; want silence", n, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// ended returns how the connection ended: io.EOF is FIN, ECONNRESET is RST.
func ended(conn net.Conn) error {
	_, err := conn.Read(make([]byte, 1))
	return err
}

func TestCutterCuts(t *testing.T) {
	c := Cut(t, echo(t, 'a'))
	for how, want := range map[How]error{RST: syscall.ECONNRESET, FIN: io.EOF} {
		one, two := through(t, c, 'a'), through(t, c, 'a')
		send(t, one, "hello")
		expect(t, one, "hello")
		c.Await("two connections", func(c *Cutter) bool { return c.Conns() == 2 })
		if n := c.CutAll(how); n != 2 || c.Conns() != 0 || c.CutAll(how) != 0 {
			t.Errorf("cut %d, %d left", n, c.Conns())
		}
		for _, conn := range []net.Conn{one, two} {
			if err := ended(conn); !errors.Is(err, want) {
				t.Errorf("%v: %v", how, err)
			}
		}
		if how == FIN { // what comes behind is taken without an RST
			send(t, one, "late")
			if err := ended(one); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		}
	}
	if c.Accepted() != 4 {
		t.Errorf("%d accepted", c.Accepted())
	}
}

func TestCutterPassesTheEnd(t *testing.T) {
	c := Cut(t, echo(t, 'a'))
	conn := through(t, c, 'a')
	send(t, conn, "last words")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, "last words")
	if err := ended(conn); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	c.Await("the end", func(c *Cutter) bool { return c.Conns() == 0 })
	if c.Passed(ToServer) != 10 || c.Passed(ToClient) != 11 {
		t.Errorf("%d to the server, %d to the client", c.Passed(ToServer), c.Passed(ToClient))
	}
}

func TestCutterStalls(t *testing.T) {
	c := Cut(t, echo(t, 'a'))
	conn := through(t, c, 'a')
	c.Stall()
	send(t, conn, "waits")
	silent(t, conn)
	late, err := net.Dial("tcp", c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Close() }()
	c.Await("another connection", func(c *Cutter) bool { return c.Accepted() == 2 })
	silent(t, late)
	c.Resume()
	expect(t, conn, "waits")
	expect(t, late, "a")
	c.Stall()
	send(t, conn, "lost")
	c.CutAll(RST)
	if err := ended(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

func TestCutterRefuses(t *testing.T) {
	c := Cut(t, echo(t, 'a'))
	for range 5 {
		conn := through(t, c, 'a')
		c.Refuse()
		c.Refuse()
		if _, err := net.Dial("tcp", c.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		send(t, conn, "still here")
		expect(t, conn, "still here")
		c.Accept()
		c.Accept()
	}
}

func TestCutterDelays(t *testing.T) {
	c := Cut(t, echo(t, 'a'))
	conn := through(t, c, 'a')
	c.Delay(30 * time.Millisecond)
	began := time.Now()
	send(t, conn, "there and back")
	expect(t, conn, "there and back")
	if took := time.Since(began); took < 60*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestCutterCutsAfter(t *testing.T) {
	c := Cut(t, echo(t, 'a'))
	bystander, conn := through(t, c, 'a'), through(t, c, 'a')
	done := c.CutAfter(ToClient, 5, FIN)
	send(t, conn, "12")
	expect(t, conn, "12")
	send(t, conn, "34567")
	expect(t, conn, "345")
	if err := ended(conn); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	<-done
	send(t, bystander, "unharmed")
	expect(t, bystander, "unharmed")
	done = c.CutAfter(ToServer, 3, RST)
	send(t, bystander, "12345")
	<-done
	if _, err := io.Copy(io.Discard, bystander); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

func TestCutterRetargets(t *testing.T) {
	c := Cut(t, echo(t, 'a'))
	old := through(t, c, 'a')
	c.Retarget(echo(t, 'b'))
	through(t, c, 'b')
	send(t, old, "x")
	expect(t, old, "x")
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	c.Retarget(gone.Addr().String())
	conn, err := net.Dial("tcp", c.Addr())
	if err == nil { // or the RST was there before the dialler had a look
		err = ended(conn)
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without a server: %v", err)
	}
}

// TestCutterCarriesMuch: more than all buffers hold, both ways at once, with cuts that
// meet full queues.
func TestCutterCarriesMuch(t *testing.T) {
	c := Cut(t, echo(t, 'a'))
	conn := through(t, c, 'a')
	const size = 8 << 20
	go func() { // ends with the connection
		_, _ = conn.Write(make([]byte, size))
	}()
	if n, err := io.CopyN(io.Discard, conn, size); err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	full := through(t, c, 'a')
	wrote := make(chan error, 1)
	go func() {
		_, err := full.Write(make([]byte, 256<<20))
		wrote <- err
	}()
	at := c.Passed(ToServer)
	c.Await("a busy connection", func(c *Cutter) bool { return c.Passed(ToServer) > at+1<<20 })
	c.CutAll(RST)
	if err := <-wrote; err == nil {
		t.Error("a whole write into a connection that was cut")
	}
}

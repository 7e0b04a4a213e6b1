package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// link is one connection through a Cutter: client and server at its two ends. Each
// direction has a goroutine that receives and one that delivers, with a queue between
// them so that a delay does not hold up what comes behind.
type link struct {
	c    *Cutter
	dead chan struct{} // closed when it was cut or is over: nothing is delivered any more

	mu     sync.Mutex
	ends   [2]*net.TCPConn // indexed by the direction in which they receive from the proxy; the server's is nil at first
	wasCut bool
	over   bool // the ends are closed
}

// piece is what was received at once and when it has to arrive.
type piece struct {
	data []byte
	due  time.Time
}

const (
	pieceSize = 64 << 10
	queued    = 64 // pieces; a receiver whose queue is full waits, and so does the sender
)

func newLink(c *Cutter, client *net.TCPConn) *link {
	l := &link{c: c, dead: make(chan struct{})}
	l.ends[ToClient] = client
	return l
}

// run passes on what comes until both ends have closed or the link was cut.
func (l *link) run(target string) {
	defer l.c.remove(l)
	defer l.close()
	if !l.connect(target) {
		return
	}
	var both sync.WaitGroup
	for _, d := range []Direction{ToServer, ToClient} {
		pieces := make(chan piece, queued)
		both.Go(func() { l.receive(d, pieces) })
		both.Go(func() { l.deliver(d, pieces) })
	}
	both.Wait()
}

// connect makes the connection to the server. Without a server the client is told
// with an RST, since it is connected already.
func (l *link) connect(target string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), lineTimeout)
	defer cancel()
	l.c.all.Go(func() {
		select {
		case <-l.dead:
			cancel()
		case <-ctx.Done():
		}
	})
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		l.cut(RST)
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wasCut {
		_ = conn.Close()
		return false
	}
	l.ends[ToServer] = conn.(*net.TCPConn)
	return true
}

// receive reads what goes in a direction. After a cut it reads on and throws away,
// so that the sender meets no RST behind a FIN.
func (l *link) receive(d Direction, pieces chan<- piece) {
	defer close(pieces)
	buf := make([]byte, pieceSize)
	for {
		n, err := l.ends[1-d].Read(buf)
		if n > 0 {
			select {
			case pieces <- piece{append([]byte(nil), buf[:n]...), l.c.due()}:
			case <-l.dead:
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && l.c.open(l.dead) {
				l.cut(RST) // what one end suffers the other has to see
			}
			return
		}
	}
}

// deliver writes what goes in a direction, when its time has come, and closes that
// direction behind the last.
func (l *link) deliver(d Direction, pieces <-chan piece) {
	for p := range pieces {
		if !l.wait(time.Until(p.due)) || !l.c.open(l.dead) {
			return
		}
		n, cut := l.c.pass(d, len(p.data))
		if _, err := l.ends[d].Write(p.data[:n]); err != nil {
			l.cut(RST)
		}
		if cut.done != nil {
			l.cut(cut.how)
			close(cut.done)
		}
	}
	if l.c.open(l.dead) {
		_ = l.ends[d].CloseWrite() // which fails when the link was cut
	}
}

// wait waits for some time: false when the link died first.
func (l *link) wait(d time.Duration) bool {
	if d <= 0 {
		return !l.isCut()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.dead:
		return false
	}
}

// cut cuts the link unless that has happened before, and reports whether it did.
func (l *link) cut(how How) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wasCut || l.over {
		return false
	}
	l.wasCut = true
	close(l.dead)
	for _, conn := range l.ends {
		if conn == nil {
			continue
		}
		if how == FIN {
			_ = conn.CloseWrite() // it fails when the other end has gone, which is as good
			continue
		}
		_ = conn.SetLinger(0)
		_ = conn.Close()
	}
	return true
}

// isCut reports whether the link was cut.
func (l *link) isCut() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// close closes both ends for good.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.over = true
	if !l.wasCut {
		close(l.dead)
	}
	for _, conn := range l.ends {
		if conn != nil {
			_ = conn.Close() // after an RST it is closed already
		}
	}
}

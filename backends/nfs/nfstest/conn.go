package nfstest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

const (
	// maxRecord bounds what one record may make the server keep.
	maxRecord = 32 << 20
	// maxParked bounds the calls of a connection that wait.
	maxParked = 4096
	lastMark  = 1 << 31
)

var errRecord = errors.New("record too long")

// conn is one connection. Its reader starts a goroutine for each call, and goes on
// when that has ended or waits.
type conn struct {
	srv    *Server
	nc     net.Conn
	number int
	gone   chan struct{} // closed by cut
	once   sync.Once
	parked chan struct{} // a token for each call under way

	sending sync.Mutex
	behind  []held
	frame   []byte

	callbacks map[uint32]chan []byte // by xid; srv.mu guards it
}

// held is a reply that leaves after others.
type held struct {
	msg  []byte
	left int
}

func newConn(s *Server, nc net.Conn, number int) *conn {
	return &conn{
		srv: s, nc: nc, number: number, gone: make(chan struct{}), parked: make(chan struct{}, maxParked),
		callbacks: map[uint32]chan []byte{},
	}
}

// cut closes the connection; serve and its calls then end.
func (c *conn) cut() {
	c.once.Do(func() {
		close(c.gone)
		_ = c.nc.Close()
	})
}

// serve reads records until the connection ends.
func (c *conn) serve() {
	defer func() {
		c.cut()
		c.srv.mu.Lock()
		defer c.srv.mu.Unlock()
		delete(c.srv.conns, c)
		c.srv.inst.forget(c)
	}()
	in := bufio.NewReaderSize(c.nc, 64<<10)
	for {
		msg, err := readRecord(in)
		if err != nil || len(msg) < 8 {
			return
		}
		if binary.BigEndian.Uint32(msg[4:]) == 1 {
			c.answered(msg)
			continue
		}
		select {
		case c.parked <- struct{}{}:
		case <-c.gone:
			return
		}
		q := newRequest(c, msg)
		c.srv.serving.Go(func() {
			defer func() { <-c.parked }()
			defer q.goOn()
			q.serve()
		})
		<-q.turn
	}
}

// readRecord reads the fragments of a record (RFC 5531 section 11).
func readRecord(in io.Reader) ([]byte, error) {
	var msg []byte
	for {
		var mark [4]byte
		if _, err := io.ReadFull(in, mark[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(mark[:])
		length := int(n &^ lastMark)
		if length > maxRecord-len(msg) {
			return nil, errRecord
		}
		at := len(msg)
		msg = append(msg, make([]byte, length)...)
		if _, err := io.ReadFull(in, msg[at:]); err != nil {
			return nil, err
		}
		if n&lastMark != 0 {
			return msg, nil
		}
	}
}

// send sends a message as one record, and the held ones whose time has come.
func (c *conn) send(msg []byte) {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.write(msg)
	rest := c.behind[:0]
	for _, h := range c.behind {
		if h.left--; h.left <= 0 {
			c.write(h.msg)
		} else {
			rest = append(rest, h)
		}
	}
	c.behind = rest
}

// hold keeps a message back until n others have been sent.
func (c *conn) hold(msg []byte, n int) {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.behind = append(c.behind, held{msg, n})
}

func (c *conn) write(msg []byte) {
	c.frame = binary.BigEndian.AppendUint32(c.frame[:0], lastMark|uint32(len(msg)))
	c.frame = append(c.frame, msg...)
	c.put(c.frame)
}

// put sends bytes as they are. c.sending is held.
func (c *conn) put(p []byte) bool {
	if _, err := c.nc.Write(p); err != nil {
		c.cut()
		return false
	}
	return true
}

// sendAs sends a message in one of the hostile ways.
func (c *conn) sendAs(msg []byte, frame Frame) {
	c.sending.Lock()
	defer c.sending.Unlock()
	record := append(binary.BigEndian.AppendUint32(nil, lastMark|uint32(len(msg))), msg...)
	switch frame {
	case FrameBytes:
		record = record[:0]
		for i, b := range msg {
			mark := uint32(1)
			if i == len(msg)-1 {
				mark |= lastMark
			}
			record = append(binary.BigEndian.AppendUint32(record, mark), b)
		}
		c.put(record)
		return
	case FrameHuge:
		binary.BigEndian.PutUint32(record, 1<<32-1)
		c.put(record)
	case FrameTruncated:
		c.put(record[:4+len(msg)/2])
	case FrameEmpty:
		for empty := make([]byte, 4096); c.put(empty); {
		}
	case FrameWhole:
		c.put(record)
		return
	}
	c.finish()
}

// finish sends no more, and leaves it to the client to read what was sent.
func (c *conn) finish() {
	if tcp, isTCP := c.nc.(*net.TCPConn); isTCP && tcp.CloseWrite() == nil {
		return
	}
	c.cut()
}

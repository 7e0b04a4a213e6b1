package rpc

import (
	"context"
	"encoding/binary"
	"net"
	"time"
)

// Link is one connection of a Transport, as Config.Revive sees it: nothing else is
// sent over it yet.
type Link struct {
	t      *Transport
	stream *stream
	xid    uint32
}

func (l *Link) close() { l.stream.close() }

// Conn is the connection. When Revive has returned it is only good for being closed, and
// for its addresses.
func (l *Link) Conn() net.Conn { return linkConn{l.stream.conn, l} }

// linkConn is a connection that perhaps goes on in a socket.
type linkConn struct {
	net.Conn
	link *Link
}

func (c linkConn) Close() error {
	c.link.close()
	return nil
}

// Call makes a call with arguments and gives the results. They are valid until the
// next. The server has Config.Silence to answer; the end of the context breaks the
// connection.
func (l *Link) Call(ctx context.Context, procedure uint32, args, data []byte) (results []byte, err error) {
	head := append(l.t.Start(nil, procedure), args...)
	l.xid = (l.xid + 1<<indexBits) | (maxCalls - 1) // no Call has this place
	seal(head, l.xid, len(data))
	conn := l.stream.conn
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(l.t.cfg.Silence))
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	pieces := [][]byte{head}
	if len(data) > 0 {
		pieces = append(pieces, data, padding[:-len(data)&3])
	}
	if err := l.stream.send(pieces); err != nil {
		return nil, err
	}
	for {
		record, err := l.record()
		if err != nil {
			return nil, err
		}
		if len(record) < 8 || binary.BigEndian.Uint32(record) != l.xid {
			continue
		}
		results, refused, err := parseReply(record[4:])
		if err != nil {
			return nil, err
		}
		if refused != nil {
			return nil, refused
		}
		return results, nil
	}
}

// record reads one record.
func (l *Link) record() ([]byte, error) {
	var record []byte
	for last := false; !last; {
		if err := l.stream.need(markSize, readBuffer); err != nil {
			return nil, err
		}
		var n int
		n, last = markOf(l.stream.next(markSize))
		if len(record)+n > l.t.cfg.MaxReply+prefix {
			return nil, protocolError("a record of more than %d bytes", l.t.cfg.MaxReply+prefix)
		}
		from := len(record)
		record = append(record, make([]byte, n)...)
		if err := l.stream.fill(record[from:]); err != nil {
			return nil, err
		}
	}
	return record, nil
}

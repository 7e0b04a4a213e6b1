package nbd

import (
	"bytes"
	"net"
)

// fuzzSeed records what a hostile reply sends to the request of its kind among
// fuzzSlots.
func fuzzSeed(h hostileReply, mode byte) []byte {
	rec := &recordConn{}
	c := &fakeConn{Conn: rec, structured: mode == 1, extended: mode == 2}
	r := request{cookie: 1 << 32, cmd: cmdRead, offset: 4096, length: kib64}
	switch h.call {
	case "write":
		r.cookie, r.cmd = 1<<32|1, cmdWrite
	case "extents":
		r = request{cookie: 1<<32 | 2, cmd: cmdBlockStatus, length: 1 << 20}
	}
	h.reply(c, r)
	return rec.Bytes()
}

// recordConn keeps what is written to it.
type recordConn struct {
	net.Conn
	bytes.Buffer
}

func (r *recordConn) Write(p []byte) (int, error) { return r.Buffer.Write(p) }
func (r *recordConn) Read(p []byte) (int, error)  { return r.Buffer.Read(p) }

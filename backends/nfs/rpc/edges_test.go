package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// nextRecord reads what the client sent.
func nextRecord(t *testing.T, conn net.Conn) []byte {
	var mark [4]byte
	if _, err := io.ReadFull(conn, mark[:]); err != nil {
		t.Error(err)
		return make([]byte, 8)
	}
	record := make([]byte, binary.BigEndian.Uint32(mark[:])&^lastFragment)
	if _, err := io.ReadFull(conn, record); err != nil {
		t.Error(err)
	}
	return record
}

// TestAnswer: calls of the server's are answered, while ours go on.
func TestAnswer(t *testing.T) {
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, args []byte) {
		for n := range uint32(3) {
			_, _ = conn.Write(marked(words(n, msgCall, 2, 40, n)))
			if got := nextRecord(t, conn); !bytes.Equal(got, words(n, msgReply, n)) {
				t.Errorf("answer %x", got)
			}
		}
		_, _ = conn.Write(marked(words(9, msgCall, 2, 40, 9))) // has no answer
		echo(conn, xid, args)
	}), Config{Answer: func(call []byte) []byte {
		if n := binary.BigEndian.Uint32(call[12:]); n < 9 {
			return words(msgReply, n)
		}
		return nil
	}})
	c := tr.NewCall()
	for range 3 {
		if err := send(t, tr, c, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnswerFlood: a server that calls and does not listen neither stops the client's
// reading nor has it pile up answers.
func TestAnswerFlood(t *testing.T) {
	const flood = 20000
	most := make(chan int, 1)
	var tr *Transport
	answer := append(words(msgReply), make([]byte, 1<<10)...)
	ready := make(chan struct{})
	tr = open(t, serveRecords(t, func(conn net.Conn, record []byte) {
		<-ready
		if binary.BigEndian.Uint32(record[4:]) == msgReply {
			return
		}
		call := marked(append(words(1, msgCall, 2), make([]byte, 1<<10)...))
		for range flood { // 20 MB, more than the sockets hold: it ends only if they are read
			if _, err := conn.Write(call); err != nil {
				t.Error(err)
				return
			}
		}
		tr.mu.Lock()
		most <- len(tr.answers)
		tr.mu.Unlock()
		echo(conn, binary.BigEndian.Uint32(record), record[40:])
	}), Config{Answer: func([]byte) []byte { return answer }})
	close(ready)
	if err := send(t, tr, tr.NewCall(), make([]byte, 100)); err != nil {
		t.Error(err)
	}
	if n := <-most; n > maxAnswers {
		t.Errorf("%d answers wait", n)
	}
}

// TestBreak: what is in flight is sent again once, in the same order, with the same
// xids, and answered once.
func TestBreak(t *testing.T) {
	const n = 5
	type arrival struct {
		conn net.Conn
		xid  uint32
		args []byte
	}
	arrivals := make(chan arrival, 2*n+1)
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, args []byte) { arrivals <- arrival{conn, xid, args} }), Config{})
	var callers sync.WaitGroup
	for range n {
		c := tr.NewCall()
		callers.Go(func() {
			if err := send(t, tr, c, make([]byte, 10)); err != nil || !c.Resent {
				t.Error(err, c.Resent)
			}
		})
	}
	var first []uint32
	for range n {
		first = append(first, (<-arrivals).xid)
	}
	tr.Break()
	var again []uint32
	var last arrival
	for range n {
		last = <-arrivals
		again = append(again, last.xid)
		echo(last.conn, last.xid, last.args)
	}
	callers.Wait()
	if !slices.Equal(first, again) || len(arrivals) > 0 || tr.flight.Load() != 0 {
		t.Errorf("%x, then %x, and %d more", first, again, len(arrivals))
	}
}

// halfway finds data behind a status word, when that is zero.
type halfway struct{}

func (halfway) Payload(results []byte) (at, n int) {
	if len(results) < 8 || binary.BigEndian.Uint32(results) != 0 {
		return 0, 0
	}
	return 8, int(binary.BigEndian.Uint32(results[4:]))
}

// TestCutInPayload: a reply that stops anywhere leaves nothing behind in the call.
func TestCutInPayload(t *testing.T) {
	for _, size := range []int{5, 100, 200 << 10} {
		whole := append(words(0, uint32(size)), bytes.Repeat([]byte{7}, size+xdr.Pad(size))...)
		for _, cut := range []int{1, 20, 33, 36 + size/2, 36 + size, 35 + size + xdr.Pad(size)} {
			for name, then := range map[string][]byte{"data": whole, "no data": words(5)} {
				var count atomic.Int64
				tr := open(t, serve(t, func(conn net.Conn, xid uint32, _ []byte) {
					if count.Add(1) == 1 {
						_, _ = conn.Write(marked(accepted(xid, whole))[:min(cut, 35+len(whole)-8)])
						_ = conn.Close()
						return
					}
					_, _ = conn.Write(marked(accepted(xid, then)))
				}), Config{})
				c, into := tr.NewCall(), make([]byte, size)
				c.Head = tr.Start(nil, 6)
				c.Into, c.Find = into, halfway{}
				_, err := tr.Do(t.Context(), c)
				want, n := then[:min(8, len(then))], 0
				if name == "data" {
					n = size
				}
				if err != nil || !bytes.Equal(c.Reply, want) || c.N != n || !c.Resent {
					t.Errorf("%s, %d bytes, cut after %d: %v, reply %x, %d bytes", name, size, cut, err, c.Reply, c.N)
				}
				_ = tr.Close()
			}
		}
	}
}

// TestPayloadCannotBeLeft: it is not the caller's while it may be sent.
func TestPayloadCannotBeLeft(t *testing.T) {
	came, goOn := make(chan struct{}), make(chan struct{})
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, args []byte) {
		close(came)
		<-goOn
		echo(conn, xid, args)
	}), Config{})
	c := tr.NewCall()
	c.Drained = func() { t.Error("drained") }
	c.Head, c.Data = tr.Start(nil, 7), make([]byte, 8)
	tr.submit(c)
	<-came
	if free, gone := tr.giveUp(c); free || gone {
		t.Error(free, gone)
	}
	close(goOn)
	<-c.done
	if err := tr.result(c); err != nil {
		t.Error(err)
	}
}

// TestLeavingAtAnyMoment: whenever a caller leaves, its buffer is its own from then on
// (the race detector looks), and Drained is called just once, and only then.
func TestLeavingAtAnyMoment(t *testing.T) {
	var count atomic.Int64
	big := marked(accepted(0, append([]byte{0, 0, 128, 0}, make([]byte, 32<<10)...)))
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, _ []byte) {
		reply := bytes.Clone(big)
		binary.BigEndian.PutUint32(reply[4:], xid)
		_, _ = conn.Write(reply)
		if count.Add(1)%100 == 0 {
			_ = conn.Close()
		}
	}), Config{})
	c := tr.NewCall()
	drained := make(chan struct{}, 2)
	c.Drained = func() { drained <- struct{}{} }
	into := make([]byte, 32<<10)
	leavings := 0
	for i := range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		c.Head, c.Into, c.Find = tr.Start(c.Head, 6), into, bulk{}
		time.AfterFunc(time.Duration(i)*200*time.Nanosecond, cancel)
		left, err := tr.Do(ctx, c)
		clear(into)
		if left {
			leavings++
			<-drained
		}
		if err != nil && block.KindOf(err) != block.Canceled || len(drained) > 0 || left && err == nil {
			t.Fatal(left, err, len(drained))
		}
		cancel()
	}
	t.Logf("%d times left", leavings)
}

// TestCloseMeetsCalls: from the moment on that what is queued may be failed for the last
// time, nothing is queued any more.
func TestCloseMeetsCalls(t *testing.T) {
	for range 300 {
		dialing := make(chan struct{}, 1)
		var first atomic.Bool
		tr, err := Open(t.Context(), Config{Patience: -1, MaxReply: 1 << 10, Dial: func(ctx context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			if first.CompareAndSwap(false, true) {
				_ = theirs.Close()
				return ours, nil
			}
			dialing <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		if err != nil {
			t.Fatal(err)
		}
		<-dialing
		var looking sync.WaitGroup
		looking.Go(func() {
			for closing := false; !closing; {
				tr.mu.Lock()
				closing = tr.isClosing()
				if closing && tr.dead == nil {
					t.Error("it is closing and takes calls")
				}
				tr.mu.Unlock()
			}
		})
		_ = tr.Close()
		looking.Wait()
		if _, err := tr.Do(t.Context(), tr.NewCall()); block.KindOf(err) != block.Closed {
			t.Error(err)
		}
	}
}

package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sluice/block"
)

func procedureOf(record []byte) uint32 { return binary.BigEndian.Uint32(record[procedureAt-markSize:]) }

const reviveProc = 50

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func reviveByCall(ctx context.Context, link *Link) error {
	_, err := link.Call(ctx, reviveProc, nil, nil)
	return err
}

// TestReviveComesFirst on each connection, also the first.
func TestReviveComesFirst(t *testing.T) {
	procs := make(chan uint32, 16)
	s := serveRecords(t, func(conn net.Conn, record []byte) {
		procs <- procedureOf(record)
		echo(conn, binary.BigEndian.Uint32(record), record[40:])
	})
	tr := open(t, s, Config{Revive: reviveByCall})
	for range 3 {
		if err := send(t, tr, tr.NewCall(), make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		if got := []uint32{<-procs, <-procs}; !slices.Equal(got, []uint32{reviveProc, 7}) {
			t.Fatalf("the connection began with the procedures %v", got)
		}
		s.cut()
	}
}

// TestReviveFails: the first time it is Open's error; later it is tried again, with
// growing delays, and what waits is answered in the end.
func TestReviveFails(t *testing.T) {
	s := serve(t, echo)
	refused := errors.New("not yet")
	_, err := Open(t.Context(), Config{
		Dial:   func(context.Context) (net.Conn, error) { return net.Dial("tcp", s.listener.Addr().String()) },
		Revive: func(context.Context, *Link) error { return refused }, MaxReply: 1 << 10,
	})
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	var tries atomic.Int64
	tr := open(t, s, Config{Revive: func(context.Context, *Link) error {
		if n := tries.Add(1); 1 < n && n < 5 {
			return refused
		}
		return nil
	}})
	c := tr.NewCall()
	must(t, send(t, tr, c, make([]byte, 8)))
	from := time.Now()
	s.cut()
	if err := send(t, tr, c, make([]byte, 8)); err != nil || tries.Load() != 5 {
		t.Error(err, tries.Load())
	}
	// At least half of 20, 40 and 80 ms.
	if took := time.Since(from); took < 70*time.Millisecond {
		t.Errorf("tried 3 times again within %v", took)
	}
}

// TestPatienceDuringRevive: a call that waits while the connection is prepared does so
// no longer than patience goes.
func TestPatienceDuringRevive(t *testing.T) {
	s := serve(t, echo)
	goOn := make(chan struct{})
	var first atomic.Bool
	tr := open(t, s, Config{Patience: 50 * time.Millisecond, Revive: func(context.Context, *Link) error {
		if first.CompareAndSwap(false, true) {
			return nil
		}
		<-goOn
		return nil
	}})
	must(t, send(t, tr, tr.NewCall(), make([]byte, 8)))
	s.cut()
	var lost *LostError
	if err := send(t, tr, tr.NewCall(), make([]byte, 8)); !errors.As(err, &lost) || block.KindOf(err) != block.Transient {
		t.Error(err)
	}
	close(goOn)
	for c := tr.NewCall(); ; {
		err := send(t, tr, c, make([]byte, 8))
		if err == nil {
			return
		}
		if !errors.As(err, &lost) || lost.Unresolved {
			t.Fatal(err)
		}
	}
}

// hang waits for a server that says nothing, without a look at the context.
func hang(_ context.Context, link *Link) error {
	_, err := io.ReadFull(link.Conn(), make([]byte, 1))
	return err
}

// TestReviveHangs: it has its time, and Close does not wait for that.
func TestReviveHangs(t *testing.T) {
	s := serve(t, echo)
	dial := func(context.Context) (net.Conn, error) { return net.Dial("tcp", s.listener.Addr().String()) }
	if _, err := Open(t.Context(), Config{Dial: dial, Revive: hang, Silence: 5 * time.Millisecond, MaxReply: 1 << 10}); err == nil {
		t.Fatal("no error")
	}
	tried := make(chan struct{}, 1)
	var first atomic.Bool
	tr := open(t, s, Config{Silence: time.Hour, Revive: func(ctx context.Context, link *Link) error {
		if first.CompareAndSwap(false, true) {
			return nil
		}
		tried <- struct{}{}
		return hang(ctx, link)
	}})
	must(t, send(t, tr, tr.NewCall(), make([]byte, 8)))
	s.cut()
	<-tried
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

// TestReviveTooLate: a Revive that says yes to a connection that time has run out for.
func TestReviveTooLate(t *testing.T) {
	s := serve(t, echo)
	dial := func(context.Context) (net.Conn, error) { return net.Dial("tcp", s.listener.Addr().String()) }
	_, err := Open(t.Context(), Config{Dial: dial, Silence: 5 * time.Millisecond, MaxReply: 1 << 10,
		Revive: func(ctx context.Context, _ *Link) error { <-ctx.Done(); return nil }})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// keepConn is a Revive that keeps the connections.
func keepConn(conns *[]net.Conn) func(context.Context, *Link) error {
	return func(_ context.Context, link *Link) error {
		*conns = append(*conns, link.Conn())
		return nil
	}
}

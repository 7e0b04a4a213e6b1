package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/backends/nfs/xdr"
)

// tryLink opens a transport whose Revive is f, once.
func tryLink(t *testing.T, s *server, silence time.Duration, f func(ctx context.Context, link *Link) error) error {
	t.Helper()
	tr, err := Open(t.Context(), Config{
		Dial:   func(context.Context) (net.Conn, error) { return net.Dial("tcp", s.listener.Addr().String()) },
		Revive: f, Silence: silence, MaxReply: 1 << 16,
	})
	if err == nil {
		err = tr.Close()
	}
	return err
}

// TestLinkXIDs: no two calls of a connection have the same, and none is a Call's.
func TestLinkXIDs(t *testing.T) {
	seen := map[uint32]bool{}
	s := serveRecords(t, func(conn net.Conn, record []byte) {
		xid := binary.BigEndian.Uint32(record)
		if seen[xid] || xid&(maxCalls-1) != maxCalls-1 {
			t.Errorf("xid %#x", xid)
		}
		seen[xid] = true
		echo(conn, xid, record[40:])
	})
	if err := tryLink(t, s, 0, func(ctx context.Context, link *Link) error {
		for i := range byte(20) {
			got, err := link.Call(ctx, 3, []byte{0, 0, 0, i}, []byte{i, i, i})
			if err != nil || !bytes.Equal(got, []byte{0, 0, 0, i, i, i, i, 0}) {
				t.Error(got, err)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestLinkSilence: a server that does not answer, or never to the point, has its time.
func TestLinkSilence(t *testing.T) {
	for name, answer := range map[string]func(conn net.Conn, xid uint32, args []byte){
		"silent": func(net.Conn, uint32, []byte) {},
		"beside the point": func(conn net.Conn, xid uint32, args []byte) {
			for {
				if _, err := conn.Write(marked(accepted(xid+1, args))); err != nil {
					return
				}
			}
		},
		"a mark and no more": func(conn net.Conn, _ uint32, _ []byte) { _, _ = conn.Write([]byte{0x80, 0, 0, 40}) },
		"empty fragments": func(conn net.Conn, _ uint32, _ []byte) {
			for {
				if _, err := conn.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		},
	} {
		if err := tryLink(t, serve(t, answer), 20*time.Millisecond, reviveByCall); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLinkContext: its end ends a call.
func TestLinkContext(t *testing.T) {
	came := make(chan struct{}, 1)
	s := serve(t, func(net.Conn, uint32, []byte) { came <- struct{}{} })
	err := tryLink(t, s, time.Hour, func(ctx context.Context, link *Link) error {
		ctx, cancel := context.WithCancel(ctx)
		go func() { <-came; cancel() }()
		return reviveByCall(ctx, link)
	})
	if !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestLinkReplies that are refused, or make no sense.
func TestLinkReplies(t *testing.T) {
	for text, reply := range map[string]func(xid uint32) []byte{
		"a record of more than":       func(uint32) []byte { return xdr.AppendUint32(nil, lastFragment|1<<30) },
		"neither call nor reply":      func(xid uint32) []byte { return marked(append(xdr.AppendUint32(nil, xid), 0, 0, 0, 7)) },
		"a reply that is too short":   func(xid uint32) []byte { return marked(accepted(xid, nil)[:20]) },
		"bad credential":              func(xid uint32) []byte { return marked(words(xid, msgReply, 1, 1, 1)) },
		"no such procedure":           func(xid uint32) []byte { return marked(words(xid, msgReply, 0, 0, 0, 3)) },
		"the longest verifier is 400": func(xid uint32) []byte { return marked(words(xid, msgReply, 0, 0, 1<<20, 0)) },
	} {
		s := serve(t, func(conn net.Conn, xid uint32, _ []byte) {
			_, _ = conn.Write(append(marked(accepted(xid+4, nil)), reply(xid)...))
		})
		err := tryLink(t, s, 0, reviveByCall)
		if text == "the longest verifier is 400" {
			text = "a reply that is too short"
		}
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func words(words ...uint32) []byte {
	var b []byte
	for _, w := range words {
		b = xdr.AppendUint32(b, w)
	}
	return b
}

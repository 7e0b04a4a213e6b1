// Package gonbd serves a file with github.com/pojntfx/go-nbd's own server, as one of the peers of the benchmark. It is
// the naive baseline: one request at a time per connection, one lock around the file, and no flush. The library answers
// NBD_CMD_FLUSH with EINVAL and does not offer it, so nothing a client writes is ever made durable on request, only
// when the client disconnects. Its figures for writes are therefore not those of a server that one may use.
//
// The bench command runs it in a process of its own. Serve's goroutine accepts; one goroutine per connection serves,
// and Serve waits for all of them.
package gonbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"github.com/pojntfx/go-nbd/pkg/server"
)

// Serve serves the file at path, under the empty export name, on a unix socket until ctx is done.
func Serve(ctx context.Context, socket, path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := &session{exports: []*server.Export{{Backend: backend.NewFileBackend(f)}}, conns: map[net.Conn]bool{}}
	stop := context.AfterFunc(ctx, func() { s.close(l) })
	defer stop()
	defer s.wg.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", socket, err)
		}
		s.serve(conn)
	}
}

// session holds the open connections; mu guards conns and closed.
type session struct {
	exports []*server.Export
	wg      sync.WaitGroup
	mu      sync.Mutex
	conns   map[net.Conn]bool
	closed  bool
}

func (s *session) serve(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return
	}
	s.conns[conn] = true
	s.wg.Go(func() {
		err := server.Handle(conn, s.exports, &server.Options{SupportsMultiConn: true})
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			fmt.Fprintln(os.Stderr, "go-nbd:", err)
		}
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	})
}

func (s *session) close(l net.Listener) {
	_ = l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for conn := range s.conns {
		_ = conn.Close()
	}
}

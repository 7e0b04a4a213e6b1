package v4

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/backends/nfs/nfstest"
	"sluice/backends/nfs/remote"
	"sluice/block"
)

// ended is told of a started call.
type ended struct {
	result chan error
	n      int
}

func (e *ended) ReadDone(n int, err error) block.Pusher {
	e.n = n
	e.result <- err
	return nil
}

func (e *ended) WriteDone(w remote.Written, err error) block.Pusher {
	e.n = w.N
	e.result <- err
	return nil
}

// write starts a write, and does it the other way where that does not work out.
func (e *ended) write(f *File, p []byte, off int64) (started bool, err error) {
	if f.StartWrite(p, off, false, e) {
		f.Kick()
		if err = <-e.result; err == nil && e.n == len(p) {
			return true, nil
		}
	}
	_, err = f.Write(context.Background(), p, off, false)
	return false, err
}

func (e *ended) read(f *File, p []byte, off int64) (started bool, err error) {
	if f.StartRead(p, off, e) {
		f.Kick()
		if err = <-e.result; err == nil && e.n == len(p) {
			return true, nil
		}
	}
	_, err = f.Read(context.Background(), p, off)
	return false, err
}

// Started calls meet every sort of trouble, and are done all the same.
func TestStartedCallsInTrouble(t *testing.T) {
	for name, trouble := range map[string]func(*nfstest.Server){
		"none":     func(*nfstest.Server) {},
		"cuts":     (*nfstest.Server).Kill,
		"sessions": (*nfstest.Server).DropSessions,
		"leases":   (*nfstest.Server).ExpireLeases,
		"delay":    func(s *nfstest.Server) { s.Fail("WRITE", 10008, 2); s.Fail("READ", 10008, 2) },
		"revoked":  func(s *nfstest.Server) { s.Revoke("/export/disk.img") },
		"errors":   func(s *nfstest.Server) { s.Fail("SEQUENCE", 10063, 1); s.Fail("PUTFH", 10008, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nfstest.Options{Limits: nfstest.Limits{Slots: 6}}, nil)
			f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true})
			var all sync.WaitGroup
			var began atomic.Int64
			for w := range 8 {
				all.Go(func() {
					e := &ended{result: make(chan error, 1)}
					for i := range 150 {
						off := int64(w)<<16 + int64(i%8)*4096
						p, q := pattern(4096, byte(w*20+i)), make([]byte, 4096)
						started, err := e.write(f, p, off)
						if err != nil {
							t.Errorf("write: %v", err)
							return
						}
						if started {
							began.Add(1)
						}
						if _, err := e.read(f, q, off); err != nil || !bytes.Equal(p, q) {
							t.Errorf("writer %d, step %d: other bytes, %v", w, i, err)
							return
						}
					}
				})
			}
			for i := range 8 {
				<-b.server.Arrived("WRITE", 100*(i+1))
				trouble(b.server)
			}
			all.Wait()
			if began.Load() == 0 {
				t.Error("no call was started")
			}
			if b.client.slots.free != ^uint64(0) {
				t.Errorf("slots are missing: %x", b.client.slots.free)
			}
		})
	}
}

// A file is closed while started calls have no answer, with the server there and not.
func TestCloseEndsStartedCalls(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("away %v", away), func(t *testing.T) {
			b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = -1 })
			f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true})
			hang := make(chan struct{})
			defer close(hang)
			b.server.Delay("WRITE", hang)
			b.server.Delay("READ", hang)
			w, r := &ended{result: make(chan error, 1)}, &ended{result: make(chan error, 1)}
			if !f.StartWrite(make([]byte, 4096), 0, false, w) || !f.StartRead(make([]byte, 4096), 8192, r) {
				t.Fatal("the calls were not begun")
			}
			f.Kick()
			<-b.server.Arrived("WRITE", 1)
			<-b.server.Arrived("READ", 1)
			if away {
				b.server.Stop()
			}
			began := time.Now()
			_ = f.Close()
			for _, e := range []*ended{w, r} {
				if err := <-e.result; err == nil {
					t.Error("a call without an answer went well")
				}
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("Close took %v", took)
			}
			if f.StartRead(make([]byte, 4096), 0, r) {
				t.Error("a call of a closed file was begun")
			}
		})
	}
}

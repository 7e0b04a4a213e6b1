package v3

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice/backends/nfs/nfstest"
	"sluice/backends/nfs/remote"
	"sluice/block"
)

// A file is closed while a write has no answer: the server hangs, or is away for good.
func TestCloseWithoutAnswer(t *testing.T) {
	for name, away := range map[string]bool{"hangs": false, "away": true} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = -1 })
			f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
			hang := make(chan struct{})
			defer close(hang)
			b.server.Delay("v3.WRITE", hang)
			arrived := b.server.Arrived("v3.WRITE", b.server.Count("v3.WRITE")+1)
			outcome := make(chan error, 1)
			go func() {
				_, err := f.Write(context.Background(), make([]byte, 4096), 0, false)
				outcome <- err
			}()
			<-arrived
			if away {
				b.server.Stop()
			}
			began := time.Now()
			_ = f.Close()
			if err := <-outcome; !errors.Is(err, block.Closed) {
				t.Errorf("the write ended with %v, want Closed", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("Close took %v", took)
			}
		})
	}
}

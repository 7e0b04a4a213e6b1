package gateway

import (
	"strings"
	"testing"
	"time"

	"sluice/block"
)

// TestSingleEndsThoughItsDeviceIsDeaf: in time, and it says so.
func TestSingleEndsThoughItsDeviceIsDeaf(t *testing.T) {
	for _, in := range []string{"write", "flush", "close"} {
		t.Run(in, func(t *testing.T) {
			stuck := newDeaf(in)
			r := serve(t, SingleConfig{Device: stuck, DrainTimeout: 300 * time.Millisecond})
			c := dial(t, r.uri)
			answered := make(chan error, 1)
			go func() { answered <- c.WriteAt(t.Context(), make([]byte, 512), 0, 0) }()
			if in == "write" {
				<-stuck.arrived
			} else if err := <-answered; err != nil {
				t.Fatal(err)
			}
			r.stop()
			select {
			case err := <-r.ended:
				// A write in the device keeps nobody from flushing it.
				if in != "write" && (block.KindOf(err) != block.Canceled || !strings.Contains(err.Error(), "close disk: ")) {
					t.Errorf("the end: %v", err)
				}
			case <-time.After(15 * time.Second):
				t.Error("it does not end")
			}
			close(stuck.let)
			<-stuck.closed // by what was left behind
			_ = c.Close()
			if in == "write" {
				<-answered
			}
		})
	}
}

package gateway

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/block"
	"sluice/block/blocktest"
	"sluice/gateway/spec"
)

// deaf is a device that does not return from one call, whatever it is told, until it
// is let go. Reads and writes of it go to a disk that tells what is durable.
type deaf struct {
	*blocktest.CrashDevice
	in           string // the call: write, flush or close
	arrived, let chan struct{}
	closed       chan struct{}
}

func newDeaf(in string) *deaf {
	return &deaf{
		CrashDevice: blocktest.NewCrashDevice(1<<20, 1), in: in,
		arrived: make(chan struct{}), let: make(chan struct{}), closed: make(chan struct{}),
	}
}

func (d *deaf) call(what string) {
	if d.in == what {
		close(d.arrived)
		<-d.let
	}
}

func (d *deaf) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	d.call("write")
	return d.CrashDevice.WriteAt(ctx, p, off, flags)
}

func (d *deaf) Flush(ctx context.Context) error {
	d.call("flush")
	return d.CrashDevice.Flush(ctx)
}

func (d *deaf) Close() error {
	d.call("close")
	defer close(d.closed)
	return d.CrashDevice.Close()
}

// put makes a device that of an export.
func (h *house) put(name string, dev block.Device) {
	h.t.Helper()
	err := h.Exchange(h.t.Context(), name, func(_ context.Context, old block.Device, _ func(Image) error) (block.Device, error) {
		return dev, old.Close()
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// TestCloseWhileADeviceIsDeaf: what does not return does not keep the gateway from
// ending, is named, and takes no other export with it: what clients wrote there is
// durable.
func TestCloseWhileADeviceIsDeaf(t *testing.T) {
	for _, in := range []string{"write", "flush", "close"} {
		t.Run(in, func(t *testing.T) {
			h := newHouse(t, func(c *Config) { c.DrainTimeout = 300 * time.Millisecond })
			stuck, sound := newDeaf(in), newDeaf("")
			for name, dev := range map[string]block.Device{"stuck": stuck, "sound": sound} {
				h.add(spec.Spec{Name: name, URL: "mem://1M"})
				h.put(name, dev)
			}
			content := bytes.Repeat([]byte{7}, 4096)
			mustWrite(t, h.dial("sound"), 0, content)
			client := h.dial("stuck")
			done := make(chan error, 1)
			go func() { done <- client.WriteAt(t.Context(), content, 0, 0) }()
			if in == "write" {
				<-stuck.arrived
			} else if err := <-done; err != nil {
				t.Fatal(err)
			}
			h.open = false
			closed := make(chan error, 1)
			begin := time.Now()
			go func() { closed <- h.Close(context.Background()) }()
			select {
			case err := <-closed:
				if err == nil || !strings.Contains(err.Error(), "close export stuck: ") || strings.Contains(err.Error(), "sound") {
					t.Errorf("close: %v", err)
				}
			case <-time.After(15 * time.Second):
				t.Error("the gateway does not end")
			}
			t.Logf("it took %v", time.Since(begin))
			got := make([]byte, len(content))
			if err := sound.Crash(nil).ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, content) {
				t.Errorf("what was written to the other export is not durable: %v", err)
			}
			close(stuck.let)
			<-stuck.closed // by what was left behind
			_ = client.Close()
			if in == "write" {
				<-done
			}
			if err := errors.Join(<-h.serving, h.state.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLongListIsCut: of exports that do not end.
func TestLongListIsCut(t *testing.T) {
	left := map[string]bool{}
	for _, name := range strings.Split("k j i h g f e d c b a", " ") {
		left[name] = true
	}
	if text := leftOpen(left).Error(); !strings.HasPrefix(text, "close export a, b, c, d, e, f, g, h, 3 more: ") {
		t.Error(text)
	}
}

// late is a device whose first write does not return before it is let, and whose
// storage is away then.
type late struct {
	*blocktest.CrashDevice
	arrived, let chan struct{}
	once         sync.Once
}

func (d *late) WriteAt(context.Context, []byte, int64, block.Flags) error {
	d.once.Do(func() { close(d.arrived) })
	<-d.let
	return block.Transient
}

// TestCloseWhenAStorageGoesAway: what is found while clients are waited for has them
// waited for no longer.
func TestCloseWhenAStorageGoesAway(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.DrainTimeout = time.Hour })
	dev := &late{CrashDevice: blocktest.NewCrashDevice(1<<20, 1), arrived: make(chan struct{}), let: make(chan struct{})}
	h.add(spec.Spec{Name: "a", URL: "mem://1M"})
	h.put("a", dev)
	client := h.dial("a")
	written := make(chan error, 1)
	go func() { written <- client.WriteAt(t.Context(), []byte("x"), 0, 0) }()
	<-dev.arrived
	h.open = false
	closed := make(chan error, 1)
	go func() { closed <- h.Close(context.Background()) }()
	waitFor(t, "the drain", func() bool { // it has looked for storages that are away
		_, err := net.Dial("unix", h.socket())
		return err != nil
	})
	close(dev.let)
	select {
	case err := <-closed:
		if err != nil { // a flush of it works
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the end waits for clients of a storage that is away")
	}
	_ = client.Close()
	<-written
	if err := errors.Join(<-h.serving, h.state.Close()); err != nil {
		t.Error(err)
	}
}

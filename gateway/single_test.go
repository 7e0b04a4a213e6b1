package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
	"sluice/metrics"
	"sluice/nbd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a Single that serves.
type running struct {
	uri, addr string
	stop, cut context.CancelFunc
	ended     chan error
}

// serve runs a Single on a TCP socket until the test ends.
func serve(t *testing.T, cfg SingleConfig) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listeners = append(cfg.Listeners, l)
	cfg.Object, cfg.Logger = "disk", slog.New(slog.DiscardHandler)
	s, err := NewSingle(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	r := &running{uri: "nbd://" + addr + "/" + cfg.Name, addr: addr, ended: make(chan error, 1)}
	stop, stopNow := context.WithCancel(t.Context())
	cut, cutNow := context.WithCancel(context.Background())
	r.stop, r.cut = stopNow, cutNow
	go func() { r.ended <- s.Run(stop, cut) }()
	t.Cleanup(func() { stopNow(); cutNow() })
	return r
}

func dial(t *testing.T, uri string) *nbd.Client {
	t.Helper()
	c, err := nbd.Dial(t.Context(), uri, nbd.ClientConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func ram(t *testing.T) *mem.Device {
	t.Helper()
	d, err := mem.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestStopFinishesWhatHasArrived stops while a write is in the device: the write
// is answered, and what it wrote is durable.
func TestStopFinishesWhatHasArrived(t *testing.T) {
	disk := blocktest.NewCrashDevice(1<<20, 512)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	slow := blocktest.NewFaultDevice(disk, blocktest.On(blocktest.InjectorFunc(func(blocktest.Op) error {
		close(arrived)
		<-goOn
		return nil
	}), blocktest.OpWrite), nil)
	r := serve(t, SingleConfig{Device: slow, Name: "x"})
	c := dial(t, r.uri)
	content := bytes.Repeat([]byte{1}, 4096)
	answered := make(chan error, 1)
	go func() { answered <- c.WriteAt(t.Context(), content, 0, 0) }()
	<-arrived
	r.stop()
	waitFor(t, "the listener's end", func() bool {
		conn, err := net.Dial("tcp", r.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-r.ended:
		t.Fatalf("Run ended with a write in progress: %v", err)
	default:
	}
	close(goOn)
	if err := <-answered; err != nil {
		t.Errorf("the write was not answered: %v", err)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	got := make([]byte, 4096)
	if err := disk.Crash(nil).ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the write was lost: %v", err)
	}
	if block.KindOf(slow.Flush(t.Context())) != block.Closed {
		t.Error("the device was left open")
	}
}

func TestCutAndTimeoutDoNotWaitForClients(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Millisecond} {
		ctx, cancel := context.WithCancel(t.Context())
		arrived := make(chan struct{})
		stuck := blocktest.NewFaultDevice(ram(t), blocktest.On(blocktest.InjectorFunc(func(blocktest.Op) error {
			close(arrived)
			<-ctx.Done() // as long as the client waits for its answer
			return nil
		}), blocktest.OpWrite), nil)
		r := serve(t, SingleConfig{Device: stuck, DrainTimeout: timeout})
		c := dial(t, r.uri)
		answered := make(chan error, 1)
		go func() { answered <- c.WriteAt(t.Context(), make([]byte, 512), 0, 0) }()
		<-arrived
		r.stop()
		if timeout == 0 {
			r.cut()
		}
		if err := <-answered; err == nil {
			t.Error("a write that hangs was answered")
		}
		cancel()
		<-r.ended
	}
}

func TestFailedFlushIsTold(t *testing.T) {
	bad := blocktest.NewFaultDevice(ram(t), blocktest.On(blocktest.Always(errors.New("medium gone")), blocktest.OpFlush), nil)
	r := serve(t, SingleConfig{Device: bad})
	r.stop()
	if err := <-r.ended; err == nil || err.Error() != "flush disk: medium gone" {
		t.Error(err)
	}
}

// broken is a listener that fails.
type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) { return nil, errors.New("no more") }

func TestListenerFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := serve(t, SingleConfig{Device: ram(t), Listeners: []net.Listener{broken{l}}})
	if err := <-r.ended; err == nil {
		t.Error("no error")
	}
}

func TestRefusedConfig(t *testing.T) {
	d := ram(t)
	defer func() { _ = d.Close() }()
	if _, err := NewSingle(SingleConfig{Device: d, Name: "a\x00b", Logger: slog.Default()}); block.KindOf(err) != block.Invalid {
		t.Error(err)
	}
}

func TestReadOnlyNameAndMetrics(t *testing.T) {
	registry := metrics.New(metrics.Build{})
	r := serve(t, SingleConfig{
		Device: ram(t), Name: "db", Description: "a database", ReadOnly: true, Metrics: registry.Export("db"),
	})
	c := dial(t, r.uri)
	if i := c.ExportInfo(); i.Name != "db" || i.Description != "a database" || !i.ReadOnly {
		t.Errorf("%+v", i)
	}
	if _, err := nbd.Dial(t.Context(), r.uri+"x", nbd.ClientConfig{}); block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

func TestAllowNeedsACertificate(t *testing.T) {
	r := serve(t, SingleConfig{Device: ram(t), Allow: []string{"host1"}, TLSMode: nbd.TLSOptional, TLS: &tls.Config{MinVersion: tls.VersionTLS12}})
	if _, err := nbd.Dial(t.Context(), r.uri, nbd.ClientConfig{}); err == nil {
		t.Error("a client without a certificate got in")
	}
}

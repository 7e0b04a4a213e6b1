package gonbd

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Serve greets, and ends with an idle client connected when it is told to.
func TestServeStopsWithAClientConnected(t *testing.T) {
	dir := t.TempDir()
	image, socket := filepath.Join(dir, "image"), filepath.Join(dir, "s")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, socket, image) }()

	conn := dial(t, socket)
	defer func() { _ = conn.Close() }()
	greeting := make([]byte, 18)
	if _, err := io.ReadFull(conn, greeting); err != nil {
		t.Fatal(err)
	}
	if got := string(greeting[:16]); got != "NBDMAGICIHAVEOPT" {
		t.Errorf("greeting %q", got)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve does not end")
	}
	if _, err := conn.Read(greeting); err == nil {
		t.Error("the connection is still open")
	}
}

// dial connects as soon as the server listens.
func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if conn, err := net.Dial("unix", socket); err == nil {
			return conn
		}
	}
	t.Fatal("the server does not listen")
	return nil
}

func TestServeTellsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	if err := Serve(context.Background(), filepath.Join(dir, "s"), filepath.Join(dir, "absent")); err == nil {
		t.Error("no error for an image that is not there")
	}
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Serve(context.Background(), filepath.Join(dir, "no", "s"), image); err == nil {
		t.Error("no error for a socket in a folder that is not there")
	}
}

package nbd

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
	proto "sluice/nbd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve offers RAM disks of 2 MiB under names and gives the socket's path.
func serve(t testing.TB, names ...string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "nbd.sock")
	serveOn(t, socket, names...)
	return socket
}

// serveOn is serve on a socket that the caller names, until stop is called or the
// test ends.
func serveOn(t testing.TB, socket string, names ...string) (stop func()) {
	t.Helper()
	var exports proto.Exports
	for _, name := range names {
		disk, err := mem.New(2 << 20)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = disk.Close() })
		if err := exports.Add(&proto.Export{Name: name, Device: disk}); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := proto.NewServer(proto.ServerConfig{Catalog: &exports})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	stop = func() {
		_ = server.Close()
		serving.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func TestConformance(t *testing.T) {
	var url string
	open := func(t testing.TB) block.Device {
		dev, err := Open(context.Background(), url, block.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return dev
	}
	blocktest.Suite{LooseZero: true, Reopen: open, Open: func(t testing.TB) block.Device {
		url = "nbd+unix:///disk?connections=2&socket=" + serve(t, "disk")
		return open(t)
	}}.Run(t)
}

func TestParseConfig(t *testing.T) {
	cfg, err := ParseConfig("nbds+unix:///d?connections=4&socket=/a%20b&reconnect=5m&timeout=3s&bitmap=x%26y&bitmap=z&stable-cache=on&tls-hostname=h")
	want := Config{
		URI:         proto.URI{TLS: true, Socket: "/a b", Export: "d", TLSHostname: "h"},
		Connections: 4, Reconnect: proto.ReconnectFor(5 * time.Minute), Timeout: 3 * time.Second,
		Bitmaps: []string{"x&y", "z"}, StableCache: true, ReconnectAsked: true,
	}
	if diff := cmp.Diff(want, cfg); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	cfg, err = ParseConfig("nbd://host/disk")
	want = Config{URI: proto.URI{Host: "host", Port: 10809, Export: "disk"}, Connections: 1, Reconnect: proto.ReconnectFor(30 * time.Second)}
	if diff := cmp.Diff(want, cfg); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	for value, want := range map[string]proto.ReconnectPolicy{"off": proto.NoReconnect, "forever": proto.ReconnectForever} {
		if cfg, err := ParseConfig("nbd://h/?reconnect=" + value); err != nil || cfg.Reconnect != want {
			t.Errorf("reconnect=%s: %v %v", value, cfg.Reconnect, err)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	for url, text := range map[string]string{
		"nbd://h/x?connections=0":                 "connections=0: want a number from 1 to 64",
		"nbd://h/x?connections=65":                "connections=65",
		"nbd://h/x?connections=2&connections=3":   `"connections" is given twice`,
		"nbd://h/x?reconnect=often":               "reconnect=often: want a duration",
		"nbd://h/x?reconnect=-1s":                 "reconnect=-1s",
		"nbd://h/x?timeout=0s":                    "timeout=0s",
		"nbd://h/x?bitmap=":                       "bitmap=: want a name",
		"nbd://h/x?stable-cache=maybe":            "stable-cache=maybe: want on or off",
		"nbd://h/x?nconnect=4":                    `unknown parameter "nconnect"`,
		"nbd+unix:///x?connections=2":             "needs the parameter socket=PATH",
		"nbd://user:secret@h/x?connections=zwei":  "connections=zwei",
		"nbd://user:secret@h/x?connections=2&x=y": `unknown parameter "x"`,
	} {
		_, err := ParseConfig(url)
		if block.KindOf(err) != block.Invalid || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestStore(t *testing.T) {
	ctx := context.Background()
	store, err := OpenStore(ctx, "nbd+unix:///?socket="+serve(t, "b", "a/1", "c d"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := store.List(ctx, "")
	want := []block.Entry{entry("a/1", 2<<20), entry("b", 2<<20), entry("c d", 2<<20)}
	if diff := cmp.Diff(want, entries); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	if e, err := store.Stat(ctx, "c d"); err != nil || e != want[2] {
		t.Error(e, err)
	}
	dev, err := store.Open(ctx, "a/1", block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := []byte("content")
	if err := dev.WriteAt(ctx, p, 0, 0); err != nil {
		t.Error(err)
	}
	if err := dev.ReadAt(ctx, p, 0); err != nil || !bytes.Equal(p, []byte("content")) {
		t.Error(p, err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"create": store.Create(ctx, "x", block.CreateOptions{Size: 512}),
		"remove": store.Remove(ctx, "b"),
	} {
		if block.KindOf(err) != block.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := store.Stat(ctx, "none"); block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
	if _, err := store.List(ctx, "a"); block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenMissingBitmap(t *testing.T) {
	_, err := Open(context.Background(), "nbd+unix:///disk?bitmap=daily&socket="+serve(t, "disk"), block.OpenOptions{})
	if block.KindOf(err) != block.NotFound || !strings.Contains(err.Error(), `"daily"`) {
		t.Fatal(err)
	}
}

// captureLog collects what is logged by the process's logger until the test ends.
func captureLog(t *testing.T) *lockedBuffer {
	t.Helper()
	was, out, flags := slog.Default(), log.Writer(), log.Flags()
	t.Cleanup(func() {
		slog.SetDefault(was)
		log.SetOutput(out)
		log.SetFlags(flags)
	})
	lines := new(lockedBuffer)
	slog.SetDefault(slog.New(slog.NewTextHandler(lines, nil)))
	return lines
}

// lockedBuffer is a buffer that goroutines of the Client write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLogsLossAndReturn: a server that goes and comes back leaves one line each,
// with its name.
func TestLogsLossAndReturn(t *testing.T) {
	lines := captureLog(t)
	ctx := context.Background()
	socket := filepath.Join(t.TempDir(), "nbd.sock")
	stop := serveOn(t, socket, "disk")
	dev, err := Open(ctx, "nbd+unix:///disk?reconnect=forever&socket="+socket, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.ReadAt(ctx, make([]byte, 512), 0); err != nil || lines.String() != "" {
		t.Fatalf("%v; logged %q", err, lines)
	}
	stop()
	serveOn(t, socket, "disk")
	if err := dev.ReadAt(ctx, make([]byte, 512), 0); err != nil { // waits for the connection
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(lines.String()), "\n")
	for i, want := range []string{"NBD connection lost", "NBD connection made again"} {
		if len(got) != 2 || !strings.Contains(got[i], want) || !strings.Contains(got[i], "/disk?socket="+socket) {
			t.Fatalf("logged:\n%s", lines)
		}
	}
}

// A server that is gone is told of soon where somebody above waits for it, unless
// the URL says how long we are to wait.
func TestHeldIsTold(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stop := serveOn(t, socket, "disk")
	open := func(more string) block.Device {
		dev, err := Open(t.Context(), "nbd+unix:///disk?socket="+socket+more, block.OpenOptions{Held: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = dev.Close() })
		return dev
	}
	soon, patient := open(""), open("&reconnect=1m")
	stop()
	told := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { told <- patient.ReadAt(ctx, make([]byte, 512), 0) }()
	begin := time.Now()
	if err := soon.ReadAt(t.Context(), make([]byte, 512), 0); block.KindOf(err) != block.Transient {
		t.Errorf("read without a server: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("told after %v", took)
	}
	select {
	case err := <-told:
		t.Errorf("did not wait as the URL says: %v", err)
	default:
	}
	cancel()
	<-told
}

package httpapi

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/spec"
)

// stream is a client that follows events.
type stream struct {
	*bench
	res   *http.Response
	lines *bufio.Reader
}

func (b *bench) follow(path string, header ...string) *stream {
	b.Helper()
	res := b.send(http.MethodGet, path, "", header...)
	b.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		b.Fatalf("%d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	s := &stream{bench: b, res: res, lines: bufio.NewReader(res.Body)}
	if first := s.line() + s.line(); first != ": events follow" {
		b.Errorf("it begins with %q", first)
	}
	return s
}

func (s *stream) line() string {
	s.Helper()
	text, err := s.lines.ReadString('\n')
	if err != nil {
		s.Fatal(err)
	}
	return strings.TrimSuffix(text, "\n")
}

// next gives the next event, whose parts have to agree.
func (s *stream) next() gateway.Event {
	s.Helper()
	id, kind, data, end := s.line(), s.line(), s.line(), s.line()
	var e gateway.Event
	strict(s.T, strings.TrimPrefix(data, "data: "), &e)
	if id != "id: "+strconv.FormatUint(e.Seq, 10) || kind != "event: "+string(e.Kind) || end != "" {
		s.Errorf("%q %q %q %q", id, kind, data, end)
	}
	return e
}

// numbered adds exports until there are n events.
func (b *bench) numbered(n uint64) {
	b.Helper()
	for i := b.fake.Events() + 1; i <= n; i++ {
		if _, err := b.fake.Add(b.Context(), spec.Spec{Name: strconv.FormatUint(i, 10), URL: "nbd://u:secret@h/"}); err != nil {
			b.Fatal(err)
		}
	}
}

// expect wants events of these numbers.
func (s *stream) expect(from, to uint64) {
	s.Helper()
	for i := from; i <= to; i++ {
		e := s.next()
		if e.Seq != i || e.Export != strconv.FormatUint(i, 10) || e.Kind != gateway.ExportAdded || e.Status == nil || e.Status.Spec.URL != "nbd://h/" {
			s.Fatalf("event %d: %+v", i, e)
		}
	}
}

// TestEventsInOrder: old ones, then those that happen, for each of several readers.
func TestEventsInOrder(t *testing.T) {
	b := start(t, standardLimits, nil)
	b.numbered(10)
	one, two := b.follow("/v1/events"), b.follow("/v1/events")
	b.numbered(20)
	one.expect(1, 20)
	two.expect(1, 20)
	b.fake.Set("3", func(st *gateway.Status) { st.State, st.Error = gateway.Held, "away\nor so" })
	if e := one.next(); e.Kind != gateway.ExportState || e.Status.State != gateway.Held || e.Status.Error != "away\nor so" {
		t.Errorf("%+v", e)
	}
}

func TestEventsAfter(t *testing.T) {
	b := start(t, standardLimits, nil)
	b.numbered(10)
	b.follow("/v1/events?after=7").expect(8, 10)
	b.follow("/v1/events", "Last-Event-ID", "8").expect(9, 10)
	b.follow("/v1/events?after=2", "Last-Event-ID", "9").expect(10, 10)
	s := b.follow("/v1/events?after=10")
	b.numbered(12)
	s.expect(11, 12)
}

// TestEventsLost: who is behind what is still known, or ahead of it after a
// restart of the daemon, is told so and goes on.
func TestEventsLost(t *testing.T) {
	b := start(t, standardLimits, nil)
	b.fake.Keep = 5
	b.numbered(20)
	for _, after := range []string{"3", "14", "1000"} {
		s := b.follow("/v1/events?after=" + after)
		if e := s.next(); e.Kind != gateway.EventsLost || e.Seq != b.fake.Events() {
			t.Errorf("after %s: %+v", after, e)
		}
		n := b.fake.Events()
		b.numbered(n + 1)
		s.expect(n+1, n+1)
	}
}

// TestSlowReader does not hold up the gateway, gets "lost" and then what comes.
func TestSlowReader(t *testing.T) {
	b := start(t, standardLimits, nil)
	b.fake.Keep = 10
	s := b.follow("/v1/events")
	big := strings.Repeat("x", 32<<10)
	add := func(i uint64) {
		if _, err := b.fake.Add(t.Context(), spec.Spec{Name: strconv.FormatUint(i, 10), URL: "/x", Description: big}); err != nil {
			t.Fatal(err)
		}
	}
	const n = 500 // 16 MiB, more than sockets hold
	for i := uint64(1); i <= n; i++ {
		add(i)
	}
	last, lost := uint64(0), false
	for last < n {
		e := s.next()
		switch {
		case e.Kind == gateway.EventsLost:
			lost = true
		case e.Seq != last+1:
			t.Fatalf("event %d follows %d", e.Seq, last)
		}
		last = e.Seq
	}
	if !lost {
		t.Error("the reader was not slow")
	}
	add(n + 1)
	if e := s.next(); e.Seq != n+1 || e.Kind != gateway.ExportAdded {
		t.Errorf("%+v", e)
	}
}

// TestStuckReader is hung up on when it takes nothing for a while.
func TestStuckReader(t *testing.T) {
	lim := standardLimits
	lim.write = time.Second
	b := start(t, lim, nil)
	b.fake.Keep = 1000
	s := b.follow("/v1/events")
	big := strings.Repeat("x", 32<<10)
	for i := range 1000 { // 32 MiB, all of which are remembered
		if _, err := b.fake.Add(t.Context(), spec.Spec{Name: strconv.Itoa(i), URL: "/x", Description: big}); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(20 * time.Second); b.srv.streams.Load() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the server did not hang up")
		}
	}
	if _, err := io.Copy(io.Discard, s.res.Body); err == nil {
		t.Error("the stream ended as if it were whole")
	}
}

func TestHeartbeat(t *testing.T) {
	lim := short()
	lim.heartbeat = 20 * time.Millisecond
	b := start(t, lim, nil)
	s := b.follow("/v1/events")
	for began := time.Now(); time.Since(began) < lim.read*5/4; { // longer than any deadline for reading
		if got := s.line() + s.line(); got != ":" {
			t.Fatalf("%q", got)
		}
	}
	b.numbered(1)
	for {
		if line := s.line(); line == "id: 1" {
			return
		} else if line != ":" && line != "" {
			t.Fatalf("%q", line)
		}
	}
}

// TestCloseEndsStreams at once, with their last chunk.
func TestCloseEndsStreams(t *testing.T) {
	b := start(t, standardLimits, nil)
	b.numbered(3)
	one, two := b.follow("/v1/events"), b.follow("/v1/events?after=3")
	one.expect(1, 3)
	begin := time.Now()
	b.srv.Close()
	for _, s := range []*stream{one, two} {
		if rest, err := io.ReadAll(s.lines); err != nil || len(rest) != 0 {
			t.Errorf("%q, %v", rest, err)
		}
	}
	if took := time.Since(begin); took > standardLimits.close {
		t.Errorf("it took %v", took)
	}
}

// TestTooManyStreams: other requests go on, and room is made when a reader leaves.
func TestTooManyStreams(t *testing.T) {
	lim := standardLimits
	lim.streams = 2
	b := start(t, lim, nil)
	one := b.follow("/v1/events")
	b.follow("/v1/events")
	if p := b.fails(503, "GET", "/v1/events", ""); p.Kind != "transient" || p.Detail != "follow events: 2 streams are open, which is the limit" {
		t.Errorf("%+v", p)
	}
	b.want(200, "GET", "/v1/exports", "", &struct{ Exports []gateway.Status }{})
	_ = one.res.Body.Close()
	for end := time.Now().Add(10 * time.Second); b.srv.streams.Load() == 2; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("no room after a reader has left")
		}
	}
	b.follow("/v1/events")
	if res, text := b.ask("HEAD", "/v1/events", ""); res.StatusCode != 503 || text != "" {
		t.Errorf("%d %q", res.StatusCode, text)
	}
}

func TestHeadOfEvents(t *testing.T) {
	b := start(t, standardLimits, nil)
	if res, text := b.ask("HEAD", "/v1/events", ""); res.StatusCode != 200 || text != "" || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%d %q", res.StatusCode, text)
	}
}

// TestEventText: an event without a number has no id; nothing breaks its lines.
func TestEventText(t *testing.T) {
	text := string(eventText(gateway.Event{Kind: gateway.EventsLost, Detail: "a\nb\r\u2028c"}))
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] != "event: lost" || lines[2] != "" || lines[3] != "" || strings.ContainsAny(lines[1], "\r") {
		t.Errorf("%q", lines)
	}
	var e gateway.Event
	if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[1], "data: ")), &e); err != nil || e.Detail != "a\nb\r\u2028c" {
		t.Errorf("%+v, %v", e, err)
	}
}

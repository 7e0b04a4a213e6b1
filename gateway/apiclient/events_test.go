package apiclient

import (
	"context"
	"strings"
	"testing"

	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/httpapi"
	"sluice/gateway/httpapi/apitest"
	"sluice/gateway/spec"
)

func add(t *testing.T, f *apitest.Fake, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := f.Add(t.Context(), spec.Spec{Name: name, URL: "/x"}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEvents come in order; a reader that leaves and comes back goes on where it
// was.
func TestEvents(t *testing.T) {
	fake := apitest.New()
	c, _, _ := served(t, httpapi.Config{Gateway: fake})
	add(t, fake, "a", "b")
	var got []string
	last := uint64(0)
	for e, err := range c.Events(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.Export); e.Kind != gateway.ExportAdded || e.Status.Spec.Name != e.Export || !e.Time.Equal(apitest.Start) {
			t.Errorf("%+v", e)
		}
		switch last = e.Seq; len(got) {
		case 2:
			add(t, fake, "c")
		case 3:
			goto left
		}
	}
left:
	add(t, fake, "d", "e")
	for e, err := range c.Events(t.Context(), last) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.Export); len(got) == 5 {
			break
		}
	}
	if text := strings.Join(got, ""); text != "abcde" {
		t.Errorf("%s", text)
	}
}

// TestEventsEnd: the last pair says why.
func TestEventsEnd(t *testing.T) {
	fake := apitest.New()
	c, srv, socket := served(t, httpapi.Config{Gateway: fake})
	add(t, fake, "a")
	ctx, cancel := context.WithCancel(t.Context())
	end := func(ctx context.Context, stop func()) (n int, last error) {
		for e, err := range c.Events(ctx, 0) {
			if last = err; err == nil && e.Export == "a" {
				n++
				stop()
			}
		}
		return n, last
	}
	if n, err := end(ctx, cancel); n != 1 || block.KindOf(err) != block.Canceled || err.Error() != "follow events of the daemon at unix:"+socket+": context canceled" {
		t.Errorf("%d events, %v", n, err)
	}
	if n, err := end(ctx, cancel); n != 0 || block.KindOf(err) != block.Canceled {
		t.Errorf("%d events, %v", n, err)
	}
	if n, err := end(t.Context(), srv.Close); n != 1 || block.KindOf(err) != block.Closed || err.Error() != "follow events of the daemon at unix:"+socket+": the daemon ended the stream" {
		t.Errorf("%d events, %v", n, err)
	}
	if n, err := end(t.Context(), srv.Close); n != 0 || block.KindOf(err) != block.Transient || !strings.Contains(err.Error(), "it is not running there") {
		t.Errorf("%d events, %v", n, err)
	}
}

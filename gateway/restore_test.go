package gateway

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/block"
	"sluice/gateway/spec"
)

// An export of the configuration keeps its number, by which clients have its file
// open, as long as it is the same image.
func TestNumbersLast(t *testing.T) {
	h := newHouse(t, nil)
	a, b := h.image("a.img", 1), h.image("b.img", 1)
	configure := func(url string) uint64 {
		t.Helper()
		if err := h.Restore(); err != nil {
			t.Fatal(err)
		}
		if err := h.Configure(t.Context(), []spec.Spec{{Name: "a", URL: url}}); err != nil {
			t.Fatal(err)
		}
		h.Settled(t.Context())
		e, err := h.find("test", "a")
		if err != nil {
			t.Fatal(err)
		}
		return e.id
	}
	first := configure(a)
	h.stop()
	h.start(nil)
	if again := configure(a); again != first {
		t.Errorf("number %d after a restart, %d before", again, first)
	}
	h.stop()
	h.start(nil)
	if other := configure(b); other == first {
		t.Error("another image has the number of the first")
	}
	h.stop()
	h.start(nil)
	if err := h.Restore(); err != nil {
		t.Fatal(err)
	}
	if err := h.Configure(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if records, err := h.state.All(); err != nil || len(records) != 0 || len(h.List()) != 0 {
		t.Errorf("what is no more in the configuration is still there: %+v, %v", records, err)
	}
}

// An export that was added and cannot be restored keeps no other from its name, but is
// not lost without a word.
func TestConfigurationReplacesWhatCannotBeRestored(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.AllowFaults = true })
	h.add(spec.Spec{Name: "a", URL: "mem://1M", Settings: spec.Settings{Faults: []string{"read:error=io"}}})
	h.stop()
	var log bytes.Buffer
	h.start(func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	if err := h.Restore(); err != nil {
		t.Fatal(err)
	}
	if err := h.Configure(t.Context(), []spec.Spec{{Name: "a", URL: "mem://2M"}}); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	if st, err := h.Show("a"); err != nil || st.Source != FromConfig || st.State != Serving || st.Size != 2<<20 {
		t.Errorf("%+v, %v", st, err)
	}
	h.stop()
	for _, want := range []string{"an export that was added earlier cannot be restored", "the configuration's export replaces one that was added earlier"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("nothing says %q:\n%s", want, log.String())
		}
	}
}

// Many at once ask for another attempt at an export that has failed.
func TestResumeAtOnce(t *testing.T) {
	h := newHouse(t, nil)
	if err := h.Configure(t.Context(), []spec.Spec{{Name: "f", URL: h.dir}}); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	for range 20 {
		var asking sync.WaitGroup
		for range 8 {
			asking.Go(func() { _, _ = h.Resume(t.Context(), "f") })
		}
		asking.Wait()
	}
	waitFor(t, "the end of the attempts", func() bool { st, _ := h.Show("f"); return st.State == Failed })
}

// An export that cannot be added leaves the one alone that has its name.
func TestRefusedAddChangesNothing(t *testing.T) {
	h := newHouse(t, nil)
	h.add(spec.Spec{Name: "a", URL: "mem://1M"})
	_, err := h.Add(t.Context(), spec.Spec{Name: "a", URL: "mem://2M"})
	kindIs(t, "a name that is taken", err, block.Exists)
	e, _ := h.find("test", "a")
	if g := e.gauges(); g.State != string(Serving) {
		t.Errorf("gauges %+v", g)
	}
	// One that fails while others wait for it: they find nothing, and the next of that
	// name is another one.
	for range 50 {
		var working sync.WaitGroup
		working.Go(func() { _, _ = h.Add(t.Context(), spec.Spec{Name: "b", URL: h.dir}) })
		working.Go(func() { _ = h.Remove(t.Context(), "b", true) })
		working.Go(func() { _, _ = h.Change(t.Context(), "b", spec.Settings{}) })
		working.Wait()
	}
	if list := h.List(); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	if records, err := h.state.All(); err != nil || len(records) != 1 {
		t.Errorf("%+v, %v", records, err)
	}
}

// TestReloadTellsWhatItReplaces: what somebody set at run time is not lost without a
// word, and what is only new in the configuration is no such thing.
func TestReloadTellsWhatItReplaces(t *testing.T) {
	var log bytes.Buffer
	h := newHouse(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	configure := func(s spec.Settings) (told []string) {
		t.Helper()
		log.Reset()
		list := []spec.Spec{{Name: "a", URL: "mem://1M", Settings: s}, {Name: "b", URL: "mem://1M"}}
		if err := h.Configure(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		h.Settled(t.Context())
		for line := range strings.Lines(log.String()) {
			if _, rest, ok := strings.Cut(strings.TrimSpace(line), `msg="what was set at run time is replaced by what the configuration says" `); ok {
				told = append(told, rest)
			}
		}
		return told
	}
	is := func(what string, got []string, want ...string) {
		t.Helper()
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	first := spec.Settings{Throttle: spec.Throttle{ReadIOPS: 100}, SlowRequest: spec.Duration(time.Second)}
	is("the start", configure(first))
	next := first
	next.Throttle.ReadIOPS = 200
	is("a change of the configuration", configure(next))
	byHand := next
	byHand.Throttle.ReadIOPS, byHand.OnError.Policy = 300, "error"
	if _, err := h.Change(t.Context(), "a", byHand); err != nil {
		t.Fatal(err)
	}
	is("changes by hand", configure(next), "export=a key=on_error", "export=a key=throttle")
	is("once more", configure(next))
	if st, err := h.Show("a"); err != nil || len(st.Spec.Differ(next)) > 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := h.Change(t.Context(), "a", byHand); err != nil {
		t.Fatal(err)
	}
	is("the configuration has followed", configure(byHand))
}

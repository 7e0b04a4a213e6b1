package gateway

import (
	"context"
	"fmt"
	"testing"
)

func TestEventsInOrder(t *testing.T) {
	e := newEvents()
	ctx, cancel := context.WithCancel(t.Context())
	all := e.subscribe(ctx, 0)
	for n := range 3 {
		e.publish(Event{Kind: ExportAdded, Export: fmt.Sprint(n)})
	}
	var second uint64
	for n := range 3 {
		ev := <-all
		if ev.Export != fmt.Sprint(n) || ev.Time.IsZero() {
			t.Errorf("event %d: %+v", n, ev)
		}
		if n == 1 {
			second = ev.Seq
		}
	}
	later := e.subscribe(ctx, second)
	if ev := <-later; ev.Export != "2" || ev.Seq != second+1 {
		t.Errorf("after the second: %+v", ev)
	}
	cancel()
	for range all {
		t.Error("an event after the end of the subscription")
	}
	e.close()
	if _, ok := <-e.subscribe(t.Context(), 0); ok {
		t.Error("an event after the end of all")
	}
	e.publish(Event{Kind: ExportAdded})
}

// A reader that is too slow, and one from before a restart, are told that they
// have missed something.
func TestEventsLost(t *testing.T) {
	e := newEvents()
	slow := e.subscribe(t.Context(), 0)
	for n := range kept + 10 {
		e.publish(Event{Kind: ExportAdded, Export: fmt.Sprint(n)})
	}
	var seen []string
	for ev := range slow {
		if ev.Kind == EventsLost {
			seen = append(seen, "lost")
		} else {
			seen = append(seen, ev.Export)
		}
		if ev.Export == fmt.Sprint(kept+9) {
			break
		}
	}
	if len(seen) < kept || seen[len(seen)-kept-1] != "lost" || seen[len(seen)-kept] != "10" {
		t.Errorf("%d events, around the gap %v", len(seen), seen[:min(len(seen), 4)])
	}
	for _, after := range []uint64{17, e.last + 1} {
		if ev := <-e.subscribe(t.Context(), after); ev.Kind != EventsLost {
			t.Errorf("a reader of another process: %+v", ev)
		}
	}
	if ev := <-e.subscribe(t.Context(), 0); ev.Export != "10" {
		t.Errorf("the oldest event is %+v", ev)
	}
	e.close()
}

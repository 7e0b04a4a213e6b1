// Package apitest is a gateway without any device, for tests of what is built on
// one: the API, its client, the commands. It keeps exports and events in memory.
//
// A [Fake] starts a goroutine for each subscription, which ends with its context;
// [Serve] starts one that ends with the test.
// All fields are guarded by its lock but Hook, which is set before the first call
// and is called without the lock.
package apitest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/backends/location"
	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/spec"
)

// Start is when everything in a Fake happens.
var Start = time.Date(2026, time.November, 1, 12, 0, 0, 0, time.UTC)

// Size is what an export has at first, in bytes.
const Size = 1 << 30

// Fake is a gateway.
type Fake struct {
	// Hook is called in front of each operation ("add", "remove", "show", "change",
	// "resize", "resume", "stats") with the export's name, and its error is given to the
	// caller. Nil does nothing.
	Hook func(ctx context.Context, op, name string) error
	// Keep is how many events are remembered; 0: 1000.
	Keep int

	mu      sync.Mutex
	exports map[string]gateway.Status
	busy    map[string]bool
	events  []gateway.Event // the last of them
	seq     uint64
	more    chan struct{} // closed when there is one more event
}

// New makes a Fake without exports.
func New() *Fake {
	return &Fake{exports: map[string]gateway.Status{}, busy: map[string]bool{}, more: make(chan struct{})}
}

func (f *Fake) hook(ctx context.Context, op, name string) error {
	if f.Hook == nil {
		return nil
	}
	return f.Hook(ctx, op, name)
}

// Add implements httpapi.Table.
func (f *Fake) Add(ctx context.Context, s spec.Spec) (gateway.Status, error) {
	if err := f.hook(ctx, "add", s.Name); err != nil {
		return gateway.Status{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.exports[s.Name]; ok {
		return gateway.Status{}, block.Errorf(block.Exists, "add export", s.Name, -1, "")
	}
	st := gateway.Status{
		Spec: s, State: gateway.Serving, Since: Start, Source: "api", Size: Size, ReadOnly: s.ReadOnly,
		Capabilities: []string{"flush", "fua"}, URIs: []string{"nbd+unix:///" + s.Name + "?socket=/run/sluice/nbd.sock"},
	}
	st.Spec.URL = location.Redact(s.URL)
	if !s.NoFUSE {
		st.File = "/run/sluice/fuse/" + s.Name
	}
	f.exports[s.Name] = st
	f.tell(gateway.ExportAdded, st)
	return st, nil
}

// tell makes an event; the lock is held.
func (f *Fake) tell(kind gateway.EventKind, st gateway.Status) {
	f.seq++
	f.events = append(f.events, gateway.Event{Seq: f.seq, Time: Start, Kind: kind, Export: st.Spec.Name, Status: &st})
	keep := f.Keep
	if keep == 0 {
		keep = 1000
	}
	f.events = f.events[max(0, len(f.events)-keep):]
	close(f.more)
	f.more = make(chan struct{})
}

// Use makes an export one that clients use, or ends that.
func (f *Fake) Use(name string, used bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy[name] = used
}

// Set changes an export behind the API's back, with an event.
func (f *Fake) Set(name string, change func(*gateway.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.exports[name]
	change(&st)
	f.exports[name] = st
	f.tell(gateway.ExportState, st)
}

// Remove implements httpapi.Table.
func (f *Fake) Remove(ctx context.Context, name string, force bool) error {
	if err := f.hook(ctx, "remove", name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st, ok := f.exports[name]
	switch {
	case !ok:
		return block.Errorf(block.NotFound, "remove export", name, -1, "")
	case f.busy[name] && !force:
		return block.Errorf(block.Busy, "remove export", name, -1, "1 client uses it")
	}
	delete(f.exports, name)
	delete(f.busy, name)
	f.tell(gateway.ExportRemoved, st)
	return nil
}

// List implements httpapi.Table, in no order.
func (f *Fake) List() []gateway.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []gateway.Status
	for _, st := range f.exports {
		all = append(all, st)
	}
	return all
}

// Show implements httpapi.Table.
func (f *Fake) Show(name string) (gateway.Status, error) {
	return f.do("show", name, func(*gateway.Status) {}, "")
}

// Change implements httpapi.Changer.
func (f *Fake) Change(ctx context.Context, name string, s spec.Settings) (gateway.Status, error) {
	if err := f.hook(ctx, "change", name); err != nil {
		return gateway.Status{}, err
	}
	return f.do("", name, func(st *gateway.Status) { st.Spec.Settings = s }, gateway.ExportChanged)
}

// Resize implements httpapi.Changer.
func (f *Fake) Resize(ctx context.Context, name string, size int64) (gateway.Status, error) {
	if err := f.hook(ctx, "resize", name); err != nil {
		return gateway.Status{}, err
	}
	return f.do("", name, func(st *gateway.Status) { st.Size = size }, gateway.ExportChanged)
}

// Resume implements httpapi.Changer.
func (f *Fake) Resume(ctx context.Context, name string) (gateway.Status, error) {
	if err := f.hook(ctx, "resume", name); err != nil {
		return gateway.Status{}, err
	}
	return f.do("", name, func(st *gateway.Status) { st.State, st.Error = gateway.Serving, "" }, gateway.ExportState)
}

// do changes an export and tells of it, where there is a kind.
func (f *Fake) do(op, name string, change func(*gateway.Status), kind gateway.EventKind) (gateway.Status, error) {
	if op != "" {
		if err := f.hook(context.Background(), op, name); err != nil {
			return gateway.Status{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st, ok := f.exports[name]
	if !ok {
		return st, block.Errorf(block.NotFound, "find export", name, -1, "")
	}
	change(&st)
	f.exports[name] = st
	if kind != "" {
		f.tell(kind, st)
	}
	return st, nil
}

// Stats implements httpapi.Table. Each export has had three reads and no write.
func (f *Fake) Stats(name string) ([]gateway.Stats, error) {
	if err := f.hook(context.Background(), "stats", name); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []gateway.Stats
	for n := range f.exports {
		if name != "" && n != name {
			continue
		}
		all = append(all, gateway.Stats{Name: n, Ops: []gateway.OpStats{
			{Protocol: "nbd", Op: "read", Requests: 3, Bytes: 12288, Errors: 1, Seconds: 0.0015, P50: 0.0004, P99: 0.0021, InFlight: 2},
			{Protocol: "nbd", Op: "write"},
		}})
	}
	if name != "" && all == nil {
		return nil, block.Errorf(block.NotFound, "find export", name, -1, "")
	}
	slices.SortFunc(all, func(a, b gateway.Stats) int { return strings.Compare(b.Name, a.Name) })
	return all, nil
}

// Subscribe implements httpapi.Table.
func (f *Fake) Subscribe(ctx context.Context, after uint64) <-chan gateway.Event {
	if after == 0 {
		f.mu.Lock()
		after = f.seq - uint64(len(f.events))
		f.mu.Unlock()
	}
	events := make(chan gateway.Event)
	go func() {
		defer close(events)
		for {
			e, more := f.next(after)
			if more != nil {
				select {
				case <-more:
					continue
				case <-ctx.Done():
					return
				}
			}
			select {
			case events <- e:
				after = e.Seq
			case <-ctx.Done():
				return
			}
		}
	}()
	return events
}

// next gives the event behind a number, or what to wait for. A reader whose next
// event is forgotten, or not made yet, is sent on to the newest.
func (f *Fake) next(after uint64) (e gateway.Event, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	oldest := f.seq - uint64(len(f.events)) // the last that is forgotten
	switch {
	case after == f.seq:
		return e, f.more
	case after > f.seq || after < oldest:
		return gateway.Event{Seq: f.seq, Time: Start, Kind: gateway.EventsLost}, nil
	}
	return f.events[after-oldest], nil
}

// Events gives the number of the last event.
func (f *Fake) Events() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

package gateway

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"sluice/block"
	"sluice/filters/fault"
	"sluice/filters/hold"
	"sluice/filters/observe"
	"sluice/filters/throttle"
	"sluice/gateway/spec"
	"sluice/metrics"
)

// layers are the filters over an image; docs/design/0005-fuse-and-daemon.md says
// why they are in this order. Each but top may be nil.
type layers struct {
	top      block.Device // what exporters serve
	throttle *throttle.Device
	hold     *hold.Device
	observe  *observe.Device
	fault    *fault.Device
	storage  *storage
}

// storage is whom to ask how the image's storage does, if anybody.
type storage struct {
	reporter atomic.Pointer[block.Reporter]
}

// set makes it that of an image, which may be another one than before.
func (s *storage) set(image block.Device) {
	if r, ok := image.(block.Reporter); ok {
		s.reporter.Store(&r)
	} else {
		s.reporter.Store(nil)
	}
}

// report gives nil where nobody tells.
func (s *storage) report() *block.StorageReport {
	r := s.reporter.Load()
	if r == nil {
		return nil
	}
	report := (*r).StorageReport()
	return &report
}

// layering says which layers there are to be.
type layering struct {
	name     string // of the export, in messages
	settings spec.Settings
	rules    []fault.Rule
	slow     time.Duration
	faults   bool // leave room for rules
	sparing  bool // only what the settings ask for
	holds    bool // hold, also when sparing
	counters *metrics.Export
	changed  func(hold.State) // may be nil
	log      *slog.Logger
}

// build puts the layers on dev, which they own.
func (l layering) build(dev block.Device) layers {
	on := layers{storage: new(storage)}
	on.storage.set(dev)
	if l.faults || len(l.rules) > 0 {
		on.fault = fault.New(dev)
		on.fault.SetRules(l.rules)
		dev = on.fault
	}
	if !l.sparing || l.slow > 0 {
		cfg := observe.Config{Object: l.name, Layer: "storage", Slow: l.slow, Log: l.log}
		if l.counters != nil {
			cfg.Observer = layerCounters{l.counters.Layer("storage")}
		}
		on.observe = observe.New(dev, cfg)
		dev = on.observe
	}
	if !l.sparing || l.holds || l.settings.OnError != (spec.OnError{}) {
		on.hold = hold.New(dev, hold.Config{
			Policy: l.settings.OnError.Hold(), Log: l.log, Object: l.name, Changed: l.changed,
		})
		dev = on.hold
	}
	if limits := l.settings.Throttle.Limits(); !l.sparing || limits != (throttle.Limits{}) {
		on.throttle = throttle.New(dev, limits)
		dev = on.throttle
	}
	on.top = dev
	return on
}

// adjust makes the layers what other settings say. All of them are there but,
// perhaps, the faults.
func (on *layers) adjust(s spec.Settings, rules []fault.Rule, slow time.Duration) {
	on.throttle.SetLimits(s.Throttle.Limits())
	on.hold.SetPolicy(s.OnError.Hold())
	on.observe.SetSlow(slow)
	if on.fault != nil {
		on.fault.SetRules(rules)
	}
}

// gauges adds what the layers do to what a scrape is told.
func (on *layers) gauges(g *metrics.Gauges) {
	g.Storage = on.storage.report()
	if on.hold != nil {
		st := on.hold.State()
		g.Held = st.Waiting
		if st.Status != hold.Serving && g.State == string(Serving) {
			g.State = st.Status.String()
		}
		g.HeldTime = on.hold.Counts().Total
	}
	if on.throttle != nil {
		waits := on.throttle.Stats()
		g.Throttled = waits.Read.Requests + waits.Write.Requests
		g.ThrottledTime = waits.Read.Time + waits.Write.Time
	}
}

// rulesOf reads fault rules.
func rulesOf(name string, s spec.Settings) ([]fault.Rule, error) {
	rules := make([]fault.Rule, 0, len(s.Faults))
	for _, text := range s.Faults {
		rule, err := fault.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("export %s: %w", name, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

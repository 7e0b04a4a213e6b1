package gateway

import (
	"context"
	"fmt"
	"time"

	"sluice/backends/location"
	"sluice/block"
	"sluice/filters/align"
	"sluice/filters/fault"
	"sluice/filters/hold"
	"sluice/filters/observe"
	"sluice/filters/swap"
	"sluice/filters/throttle"
	"sluice/gateway/image"
	"sluice/gateway/spec"
)

// stack is the device of an export, from the top down, and those of its layers
// that can be adjusted. docs/design/0005-fuse-and-daemon.md says why they are in
// this order.
type stack struct {
	top      block.Device // what exporters serve: throttle
	throttle *throttle.Device
	hold     *hold.Device
	observe  *observe.Device
	fault    *fault.Device // nil where there are no rehearsals
	image    *swap.Device  // the image, which can be exchanged
}

// build opens the image of an export and puts the layers on it.
func (g *Gateway) build(ctx context.Context, e *export, s spec.Spec) (*stack, error) {
	img, err := openImage(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.Passthrough && !img.Info().Has(block.CapFileRange) {
		_ = img.Close()
		return nil, block.Errorf(block.Unsupported, "open", location.Redact(s.URL), -1,
			"passthrough needs a raw image in a local file")
	}
	st := &stack{image: swap.New(img)}
	var dev block.Device = st.image
	if g.cfg.AllowFaults {
		st.fault = fault.New(dev)
		st.fault.SetRules(e.rules)
		dev = st.fault
	}
	st.observe = observe.New(dev, g.watch(e, s))
	st.hold = hold.New(st.observe, hold.Config{
		Policy: s.OnError.Hold(), Log: g.cfg.Log.With("export", s.Name), Object: s.Name, Changed: e.changed,
	})
	st.throttle = throttle.New(st.hold, s.Throttle.Limits())
	st.top = st.throttle
	return st, nil
}

// openImage opens what a Spec names, for clients that may know nothing of blocks.
func openImage(ctx context.Context, s spec.Spec) (block.Device, error) {
	dev, err := image.Open(ctx, s.URL, image.Format{Name: s.Format, From: "format"},
		block.OpenOptions{ReadOnly: s.ReadOnly, Direct: s.Direct, Share: s.Share, Unlocked: s.Unlocked})
	if err != nil {
		return nil, err
	}
	return align.New(dev), nil
}

// watch configures the layer that looks at the storage.
func (g *Gateway) watch(e *export, s spec.Spec) observe.Config {
	cfg := observe.Config{Object: s.Name, Layer: "image", Slow: g.slow(s.Settings), Log: g.cfg.Log}
	if e.counters != nil {
		cfg.Observer = layerCounters{e.counters.Layer("image")}
	}
	return cfg
}

func (g *Gateway) slow(s spec.Settings) time.Duration {
	if s.SlowRequest > 0 {
		return s.SlowRequest.Std()
	}
	return g.cfg.SlowRequest
}

// rules reads the fault rules of an export's settings.
func (g *Gateway) rules(name string, s spec.Settings) ([]fault.Rule, error) {
	if len(s.Faults) > 0 && !g.cfg.AllowFaults {
		return nil, block.Errorf(block.Permission, "check export", name, -1,
			"faults are not allowed here; the daemon takes them with --allow-faults")
	}
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

// adjust makes the layers what the settings say.
func (st *stack) adjust(g *Gateway, s spec.Settings, rules []fault.Rule) {
	st.throttle.SetLimits(s.Throttle.Limits())
	st.hold.SetPolicy(s.OnError.Hold())
	st.observe.SetSlow(g.slow(s))
	if st.fault != nil {
		st.fault.SetRules(rules)
	}
}

package gateway

import (
	"context"
	"time"

	"sluice/backends/location"
	"sluice/block"
	"sluice/filters/align"
	"sluice/filters/fault"
	"sluice/filters/hold"
	"sluice/filters/swap"
	"sluice/gateway/image"
	"sluice/gateway/spec"
)

// stack is the device of an export: the image, which can be exchanged, and the
// layers over it.
type stack struct {
	layers
	image *swap.Device
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
	st.layers = layering{
		name: s.Name, settings: s.Settings, rules: e.rules, slow: g.slow(s.Settings), faults: g.cfg.AllowFaults,
		counters: e.counters, changed: e.changed, log: g.cfg.Log.With("export", s.Name),
	}.build(st.image)
	st.storage.set(img)
	return st, nil
}

// openImage opens what a Spec names, for clients that may know nothing of blocks.
func openImage(ctx context.Context, s spec.Spec) (block.Device, error) {
	dev, err := image.Open(ctx, s.URL, image.Format{Name: s.Format, From: "format"},
		block.OpenOptions{ReadOnly: s.ReadOnly, Direct: s.Direct, Share: s.Share, Unlocked: s.Unlocked, Held: s.OnError.Hold().Mode == hold.Wait})
	if err != nil {
		return nil, err
	}
	return align.New(dev), nil
}

func (g *Gateway) slow(s spec.Settings) time.Duration {
	if s.SlowRequest > 0 {
		return s.SlowRequest.Std()
	}
	return g.tuning.Load().SlowRequest
}

// rules reads the fault rules of an export's settings.
func (g *Gateway) rules(name string, s spec.Settings) ([]fault.Rule, error) {
	if len(s.Faults) > 0 && !g.cfg.AllowFaults {
		return nil, block.Errorf(block.Permission, "check export", name, -1,
			"faults are not allowed here; the daemon takes them with --allow-faults")
	}
	return rulesOf(name, s)
}

package gateway

import (
	"time"

	"sluice/backends/location"
	"sluice/block"
	"sluice/filters/observe"
	"sluice/fusefs"
	"sluice/metrics"
	"sluice/nbd"
)

// What the layers count, brought to the operations of NBD, which metrics know.

// fuseOps are the operations of FUSE files.
var fuseOps = [fusefs.NumOps]nbd.Op{
	fusefs.OpRead: nbd.OpRead, fusefs.OpWrite: nbd.OpWrite, fusefs.OpFlush: nbd.OpFlush,
	fusefs.OpTrim: nbd.OpTrim, fusefs.OpZero: nbd.OpZero, fusefs.OpStatus: nbd.OpStatus,
}

// fileCounters is a fusefs.Observer.
type fileCounters struct{ to *metrics.Requests }

func (c fileCounters) Request(op fusefs.Op, bytes int64, took time.Duration, kind block.Kind) {
	c.to.Request(fuseOps[op], bytes, took, kind)
}
func (c fileCounters) InFlight(op fusefs.Op, delta int) { c.to.InFlight(fuseOps[op], delta) }
func (c fileCounters) Open(delta int)                   { c.to.Open(delta) }

// layerOps are the operations of a layer.
var layerOps = [observe.NumOps]nbd.Op{
	observe.OpRead: nbd.OpRead, observe.OpWrite: nbd.OpWrite, observe.OpFlush: nbd.OpFlush, observe.OpTrim: nbd.OpTrim,
	observe.OpZero: nbd.OpZero, observe.OpCache: nbd.OpCache, observe.OpStatus: nbd.OpStatus,
}

// layerCounters is an observe.Observer.
type layerCounters struct{ to *metrics.Requests }

func (c layerCounters) Request(op observe.Op, bytes int64, took time.Duration, kind block.Kind) {
	c.to.Request(layerOps[op], bytes, took, kind)
}
func (c layerCounters) InFlight(op observe.Op, delta int) { c.to.InFlight(layerOps[op], delta) }
func (c layerCounters) Pinned(bytes int64)                { c.to.Pinned(bytes) }

// gauges is what a scrape asks for.
func (e *export) gauges() metrics.Gauges {
	e.mu.Lock()
	g, st, a := metrics.Gauges{State: string(e.state)}, e.stack, e.awaited
	e.mu.Unlock()
	if st == nil {
		if a != nil {
			g.Held = a.hold.State().Waiting
		}
		return g
	}
	st.gauges(&g)
	swaps := st.image.Stats()
	g.Swaps, g.LastSwap, g.LongestSwap = swaps.Exchanges, swaps.Last, swaps.Longest
	return g
}

// Stats counts what happened to an export, or to all of them where no name is
// given.
func (g *Gateway) Stats(name string) ([]Stats, error) {
	exports := g.all()
	if name != "" {
		e, err := g.find("show export", name)
		if err != nil {
			return nil, err
		}
		exports = []*export{e}
	}
	list := make([]Stats, 0, len(exports))
	for _, e := range exports {
		list = append(list, Stats{Name: e.name, Ops: e.ops()})
	}
	return list, nil
}

func (e *export) ops() []OpStats {
	list := []OpStats{}
	if e.counters == nil {
		return list
	}
	for _, s := range e.counters.Stats() {
		list = append(list, OpStats{
			Protocol: s.Protocol, Op: s.Op, Requests: s.Requests, Bytes: s.Bytes, Errors: s.Errors,
			Seconds: s.Time.Seconds(), P50: s.P50.Seconds(), P99: s.P99.Seconds(), InFlight: s.InFlight,
		})
	}
	return list
}

func redact(url string) string { return location.Redact(url) }

// names are the capabilities by name, never nil.
func names(c block.Cap) []string {
	if list := c.Names(); list != nil {
		return list
	}
	return []string{}
}

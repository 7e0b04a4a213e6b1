package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/block"
	"sluice/nbd"
)

// The metrics of exports. docs/metrics.md says more about each.
var (
	descRequests = desc("requests_total",
		"Requests answered, failed ones included.", "export", "op")
	descBytes = desc("request_bytes_total",
		"Bytes that answered requests covered, failed ones included.", "export", "op")
	descErrors = desc("request_errors_total",
		"Requests that failed, by kind of failure.", "export", "op", "kind")
	descDuration = desc("request_duration_seconds",
		"Time from the arrival of a request until its answer was ready.", "export", "op")
	descInFlight = desc("requests_in_flight",
		"Requests being worked on.", "export", "op")
	descConns = desc("connections",
		"Open connections.", "export")
	descOpened = desc("connections_total",
		"Connections opened.", "export")
	descSize = desc("export_size_bytes",
		"Size of the export as clients see it.", "export")
	descReadOnly = desc("export_read_only",
		"1 when the export takes no writes, else 0.", "export")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

// exportCollector makes the metrics of all exports at each scrape.
type exportCollector struct{ registry *Registry }

// Describe names the metrics; see prometheus.Collector.
func (c exportCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRequests, descBytes, descErrors, descDuration, descInFlight,
		descConns, descOpened, descSize, descReadOnly,
	} {
		ch <- d
	}
}

// Collect sends the metrics of all exports; see prometheus.Collector.
func (c exportCollector) Collect(ch chan<- prometheus.Metric) {
	for _, e := range c.registry.list() {
		e.collect(ch)
	}
}

// collect sends one export's metrics. An operation shows up with its first
// request: most exports never see most operations, and a histogram is some
// twenty series.
func (e *Export) collect(ch chan<- prometheus.Metric) {
	var inFlight [nbd.NumOps]int64
	var conns int64
	for _, s := range e.shards {
		for op := range inFlight {
			inFlight[op] += s.inFlight[op].Load()
		}
		conns += s.conns.Load()
	}
	ch <- gauge(descConns, float64(conns), e.name)
	ch <- counted(descOpened, e.opened.Load(), e.name)

	e.mu.Lock()
	tallies, info, known := e.tallies, e.info, e.known
	e.mu.Unlock()
	if known {
		var readOnly float64
		if info.ReadOnly {
			readOnly = 1
		}
		ch <- gauge(descSize, float64(info.Size), e.name)
		ch <- gauge(descReadOnly, readOnly, e.name)
	}
	for op, t := range tallies {
		if t != nil || inFlight[op] != 0 { // the first may be stuck
			ch <- gauge(descInFlight, float64(inFlight[op]), e.name, nbd.Op(op).String())
		}
		if t != nil {
			t.collect(ch, e.name, nbd.Op(op).String())
		}
	}
}

// collect sends the metrics of one operation, all of the same moment.
func (t *tally) collect(ch chan<- prometheus.Metric, export, op string) {
	h := newHistogram(export, op)
	t.read(&h.snapshot)
	ch <- counted(descRequests, h.count(), export, op)
	ch <- counted(descBytes, h.bytes, export, op)
	for slot, n := range h.errors {
		if n > 0 || isAlarming(block.Kind(slot)) {
			ch <- counted(descErrors, n, export, op, kindLabels[slot])
		}
	}
	ch <- h
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counted(d *prometheus.Desc, n uint64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

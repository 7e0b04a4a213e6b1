package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/block"
	"sluice/nbd"
)

// The metrics of exports. docs/metrics.md says more about each.
var (
	byProtocol = family{
		requests: desc("requests_total",
			"Requests answered, failed ones included.", "export", "protocol", "op"),
		bytes: desc("request_bytes_total",
			"Bytes that answered requests covered, failed ones included.", "export", "protocol", "op"),
		errors: desc("request_errors_total",
			"Requests that failed, by kind of failure.", "export", "protocol", "op", "kind"),
		duration: desc("request_duration_seconds",
			"Time from the arrival of a request until its answer was ready.", "export", "protocol", "op"),
		inFlight: desc("requests_in_flight",
			"Requests being worked on.", "export", "protocol", "op"),
		label: "protocol",
	}
	byLayer = family{
		requests: desc("layer_requests_total",
			"Requests that passed a layer of the export's stack, failed ones included.", "export", "layer", "op"),
		bytes: desc("layer_request_bytes_total",
			"Bytes that requests through a layer covered, failed ones included.", "export", "layer", "op"),
		errors: desc("layer_request_errors_total",
			"Requests through a layer that failed, by kind of failure.", "export", "layer", "op", "kind"),
		duration: desc("layer_request_duration_seconds",
			"Time that a request spent below a layer.", "export", "layer", "op"),
		inFlight: desc("layer_requests_in_flight",
			"Requests below a layer.", "export", "layer", "op"),
		label: "layer",
	}
	descPinned = desc("layer_pinned_bytes_total",
		"Bytes that a layer handed out as ranges of a local file, for the kernel to move.", "export", "layer")
	descConns = desc("connections",
		"Open connections.", "export")
	descOpened = desc("connections_total",
		"Connections opened.", "export")
	descFiles = desc("fuse_open_files",
		"Open files under FUSE.", "export")
	descSize = desc("export_size_bytes",
		"Size of the export as clients see it.", "export")
	descReadOnly = desc("export_read_only",
		"1 when the export takes no writes, else 0.", "export")
)

// family is the metrics that are made of one Requests.
type family struct {
	requests, bytes, errors, duration, inFlight *prometheus.Desc
	label                                       string // what tells one Requests of an export from another
}

func (f *family) descs() []*prometheus.Desc {
	return []*prometheus.Desc{f.requests, f.bytes, f.errors, f.duration, f.inFlight}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

// exportCollector makes the metrics of all exports at each scrape.
type exportCollector struct{ registry *Registry }

// Describe names the metrics; see prometheus.Collector.
func (c exportCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, list := range [][]*prometheus.Desc{
		byProtocol.descs(), byLayer.descs(), gaugeDescs,
		{descPinned, descConns, descOpened, descFiles, descSize, descReadOnly},
	} {
		for _, d := range list {
			ch <- d
		}
	}
}

// Collect sends the metrics of all exports; see prometheus.Collector.
func (c exportCollector) Collect(ch chan<- prometheus.Metric) {
	for _, e := range c.registry.list() {
		e.collect(ch)
	}
}

// collect sends one export's metrics.
func (e *Export) collect(ch chan<- prometheus.Metric) {
	p := e.parts()
	_, conns := e.nbd.now()
	ch <- gauge(descConns, float64(conns), e.name)
	ch <- counted(descOpened, e.nbd.opened.Load(), e.name)
	if p.known {
		var readOnly float64
		if p.info.ReadOnly {
			readOnly = 1
		}
		ch <- gauge(descSize, float64(p.info.Size), e.name)
		ch <- gauge(descReadOnly, readOnly, e.name)
	}
	if p.gauges != nil {
		p.gauges().collect(ch, e.name)
	}
	for _, r := range p.protocols {
		if r.name == protocolFUSE {
			_, files := r.now()
			ch <- gauge(descFiles, float64(files), e.name)
		}
		byProtocol.collect(ch, e.name, r)
	}
	for _, r := range p.layers {
		ch <- counted(descPinned, r.pinned.Load(), e.name, r.name)
		byLayer.collect(ch, e.name, r)
	}
}

// collect sends the metrics of some requests. An operation shows up with its
// first request: most exports never see most operations, and a histogram is some
// twenty series.
func (f *family) collect(ch chan<- prometheus.Metric, export string, r part) {
	inFlight, _ := r.now()
	for op, t := range r.used() {
		labels := [...]string{export, r.name, nbd.Op(op).String()}
		if t != nil || inFlight[op] != 0 { // the first may be stuck
			ch <- gauge(f.inFlight, float64(inFlight[op]), labels[:]...)
		}
		if t != nil {
			f.collectOp(ch, t, labels)
		}
	}
}

// collectOp sends the metrics of one operation, all of the same moment.
func (f *family) collectOp(ch chan<- prometheus.Metric, t *tally, labels [3]string) {
	h := newHistogram(f, labels)
	t.read(&h.snapshot)
	ch <- counted(f.requests, h.count(), labels[:]...)
	ch <- counted(f.bytes, h.bytes, labels[:]...)
	for slot, n := range h.errors {
		if n > 0 || isAlarming(block.Kind(slot)) {
			ch <- counted(f.errors, n, labels[0], labels[1], labels[2], kindLabels[slot])
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

package metrics

import (
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds how many scrapes are worked on at once.
const maxScrapes = 4

// Build says which program this is, in sluice_build_info.
type Build struct {
	Version   string
	GoVersion string // runtime.Version() when empty
}

// Registry holds all metrics of a process, and its health checks. There is no
// global one.
type Registry struct {
	prom *prometheus.Registry

	mu      sync.Mutex // guards all below
	exports map[string]*Export
	checks  map[*check]struct{}
}

// New makes a registry that knows the program's build, the Go runtime and the
// process.
func New(build Build) *Registry {
	if build.GoVersion == "" {
		build.GoVersion = runtime.Version()
	}
	r := &Registry{
		prom:    prometheus.NewRegistry(),
		exports: make(map[string]*Export),
		checks:  make(map[*check]struct{}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_build_info",
		Help: "Always 1; the labels tell which build of Sluice runs.",
		ConstLabels: prometheus.Labels{
			"version":   label(build.Version),
			"goversion": label(build.GoVersion),
		},
	})
	info.Set(1)
	r.prom.MustRegister(
		info,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		exportCollector{r},
	)
	return r
}

// Mount adds sluice_fuse_mounted, for a process that has a FUSE mount: it is asked
// with each scrape whether that is there. It may be called once.
func (r *Registry) Mount(there func() bool) {
	r.prom.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_fuse_mounted",
		Help: "1 while the FUSE mount is there, 0 when it was unmounted from outside.",
	}, func() float64 {
		if there() {
			return 1
		}
		return 0
	}))
}

// Export gives the counters of the export with this name, and makes them when
// there are none. They stay in the registry until they are closed. Bytes in the
// name that are not UTF-8 show as U+FFFD.
func (r *Registry) Export(name string) *Export {
	name = label(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.exports[name]
	if e == nil {
		e = newExport(r, name)
		r.exports[name] = e
	}
	return e
}

// remove forgets an export, but not one that has taken over its name.
func (r *Registry) remove(e *Export) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exports[e.name] == e {
		delete(r.exports, e.name)
	}
}

// list gives all exports in the order of their names.
func (r *Registry) list() []*Export {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.exports), func(a, b *Export) int {
		return strings.Compare(a.name, b.name)
	})
}

// Handler answers scrapes: in Prometheus' text format, as OpenMetrics, or as
// protobuf where the client asks for it (only there with native histograms). A
// collector that fails is logged and left out. log may be nil.
func (r *Registry) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r.prom, promhttp.HandlerOpts{
		ErrorLog:            errorLog(log),
		ErrorHandling:       promhttp.ContinueOnError,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: maxScrapes,
	})
}

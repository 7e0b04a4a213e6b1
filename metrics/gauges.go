package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/block"
)

// Gauges is what an export is doing at the moment, and figures that others count.
type Gauges struct {
	State string // one of States

	Held     int           // requests that wait for the storage
	HeldTime time.Duration // how long all outages lasted

	Throttled     uint64        // requests that had to wait for their turn
	ThrottledTime time.Duration // how long, all together

	Swaps       uint64        // exchanges of the device stack
	LastSwap    time.Duration // how long requests stood still for the last one
	LongestSwap time.Duration

	Storage *block.StorageReport // nil where the image's backend does not tell
}

// States are the values of the label "state".
var States = [...]string{"opening", "serving", "held", "frozen", "swapping", "closing", "failed"}

var (
	descState = desc("export_state",
		"1 for the state that the export is in, 0 for the others.", "export", "state")
	descHeld = desc("held_requests",
		"Requests that wait for the storage to come back.", "export")
	descHeldTime = desc("held_seconds_total",
		"How long requests had to wait for the storage: the length of all outages.", "export")
	descThrottled = desc("throttled_requests_total",
		"Requests that had to wait because of a limit.", "export")
	descThrottledTime = desc("throttled_seconds_total",
		"How long requests waited because of a limit, all together.", "export")
	descSwaps = desc("swaps_total",
		"Exchanges of the device stack.", "export")
	descSwapTime = desc("swap_seconds",
		"How long requests stood still for an exchange of the device stack: the last one, the longest one.", "export", "stall")
	descConnected = desc("storage_connections",
		"Connections to the image's server: those that are up, those that there should be.", "export", "state")
	descLosses = desc("storage_connection_losses_total",
		"Connections to the image's server that were lost.", "export")
	descRecoveries = desc("storage_recoveries_total",
		"How often the image's server was restarted, or had forgotten us.", "export")
	descAway = desc("storage_away_seconds",
		"How long the image's server has been away, 0 while it is there.", "export")
	descKept = desc("storage_kept_bytes",
		"Memory for what the image's server has and is not known to be durable there.", "export")

	gaugeDescs = []*prometheus.Desc{
		descState, descHeld, descHeldTime, descThrottled, descThrottledTime, descSwaps, descSwapTime,
		descConnected, descLosses, descRecoveries, descAway, descKept,
	}
)

// collect sends the metrics of an export's state.
func (g Gauges) collect(ch chan<- prometheus.Metric, export string) {
	for _, state := range States {
		var is float64
		if state == g.State {
			is = 1
		}
		ch <- gauge(descState, is, export, state)
	}
	ch <- gauge(descHeld, float64(g.Held), export)
	ch <- seconds(descHeldTime, g.HeldTime, export)
	ch <- counted(descThrottled, g.Throttled, export)
	ch <- seconds(descThrottledTime, g.ThrottledTime, export)
	ch <- counted(descSwaps, g.Swaps, export)
	ch <- gauge(descSwapTime, g.LastSwap.Seconds(), export, "last")
	ch <- gauge(descSwapTime, g.LongestSwap.Seconds(), export, "longest")
	if g.Storage != nil {
		collectStorage(ch, export, g.Storage)
	}
}

func collectStorage(ch chan<- prometheus.Metric, export string, r *block.StorageReport) {
	ch <- gauge(descConnected, float64(r.Connected), export, "up")
	ch <- gauge(descConnected, float64(r.Wanted), export, "wanted")
	ch <- counted(descLosses, r.Losses, export)
	ch <- counted(descRecoveries, r.Recoveries, export)
	var away float64
	if !r.Away.IsZero() {
		away = time.Since(r.Away).Seconds()
	}
	ch <- gauge(descAway, away, export)
	ch <- gauge(descKept, float64(r.Kept), export)
}

func seconds(d *prometheus.Desc, total time.Duration, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, total.Seconds(), labels...)
}

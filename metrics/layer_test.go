package metrics

import (
	"strings"
	"testing"
	"time"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/filters/observe"
	"sluice/nbd"
)

// layer lets Requests observe a Device: the operations are the same.
type layer struct{ *Requests }

func (l layer) Request(op observe.Op, bytes int64, took time.Duration, kind block.Kind) {
	l.Requests.Request(nbd.Op(op), bytes, took, kind)
}

func (l layer) InFlight(op observe.Op, delta int) { l.Requests.InFlight(nbd.Op(op), delta) }

// TestObserved lets filters/observe tell of a layer.
func TestObserved(t *testing.T) {
	ram, err := mem.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Build{})
	var observer observe.Observer = layer{r.Export("x").Layer("storage")}
	d := observe.New(ram, observe.Config{Observer: observer})
	for range 3 {
		if err := d.WriteAt(t.Context(), make([]byte, 100), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.ReadAt(t.Context(), make([]byte, 1), 1<<20); block.KindOf(err) != block.OutOfRange {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	got := text(t, r)
	for _, want := range []string{
		`sluice_layer_requests_total{export="x",layer="storage",op="write"} 3`,
		`sluice_layer_request_bytes_total{export="x",layer="storage",op="write"} 300`,
		`sluice_layer_request_duration_seconds_count{export="x",layer="storage",op="write"} 3`,
		`sluice_layer_request_errors_total{export="x",kind="out_of_range",layer="storage",op="read"} 1`,
		`sluice_layer_requests_in_flight{export="x",layer="storage",op="write"} 0`,
		`sluice_layer_pinned_bytes_total{export="x",layer="storage"} 0`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(got, "sluice_fuse") || strings.Contains(got, `protocol="fuse"`) || strings.Contains(got, "sluice_export_state") {
		t.Error("what is not in use shows up")
	}
}

package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/gateway/spec"
)

func TestDiff(t *testing.T) {
	old, next := Default(), Default()
	faster := spec.Settings{Throttle: spec.Throttle{ReadIOPS: 5}}
	old.Exports = []spec.Spec{
		{Name: "gone", URL: "/g"}, {Name: "same", URL: "/s", NBD: []string{}}, {Name: "faster", URL: "/f"},
		{Name: "moved", URL: "/m"}, {Name: "both", URL: "/b"}, {Name: "gone too", URL: "/g"},
	}
	next.Exports = []spec.Spec{
		{Name: "new", URL: "/n"}, {Name: "both", URL: "/b", ReadOnly: true, Settings: faster}, {Name: "moved", URL: "/m2"},
		{Name: "faster", URL: "/f", Settings: faster}, {Name: "same", URL: "/s"},
	}
	old.LogLevel, old.TLS.CA, old.NBD = "warn", "/ca", []string{}
	want := &Change{
		Added: next.Exports[:1], Removed: []string{"gone", "gone too"},
		Settings: next.Exports[3:4], Replaced: next.Exports[1:3],
		Applied: []string{"log_level"}, Restart: []string{"nbd", "tls"},
	}
	if diff := cmp.Diff(want, Diff(old, next)); diff != "" {
		t.Error(diff)
	}
	if d := Diff(next, next); !d.Empty() {
		t.Errorf("%+v", d)
	}
}

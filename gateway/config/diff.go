package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"sluice/gateway/spec"
)

// Change is what a new configuration asks for that the old one did not.
type Change struct {
	Added    []spec.Spec // in the new order
	Removed  []string    // names, in the old order
	Settings []spec.Spec // only Settings differ: they can be applied to the export as it is served
	Replaced []spec.Spec // anything else differs: the export has to be removed and added

	Applied []string // top-level keys that take effect at once
	Restart []string // top-level keys that need a restart
}

// Empty reports whether there is nothing to do.
func (c *Change) Empty() bool {
	return len(c.Added)+len(c.Removed)+len(c.Settings)+len(c.Replaced)+len(c.Applied)+len(c.Restart) == 0
}

// atOnce are the top-level keys that are looked at whenever they matter. The
// others have gone into sockets, mounts and servers.
var atOnce = []string{"log_level", "shutdown_timeout", "slow_request"}

// Diff compares two configurations.
func Diff(old, next *Config) *Change {
	c := &Change{}
	c.exports(old, next)
	a, b := reflect.ValueOf(old).Elem(), reflect.ValueOf(next).Elem()
	for i := range a.NumField() {
		name := a.Type().Field(i).Tag.Get("toml")
		switch {
		case name == "export" || reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
		case slices.Contains(atOnce, name):
			c.Applied = append(c.Applied, name)
		default:
			c.Restart = append(c.Restart, name)
		}
	}
	return c
}

func (c *Change) exports(old, next *Config) {
	before := map[string]spec.Spec{}
	for _, s := range old.Exports {
		before[s.Name] = s
	}
	kept := map[string]bool{}
	for _, s := range next.Exports {
		was, ok := before[s.Name]
		kept[s.Name] = true
		switch {
		case !ok:
			c.Added = append(c.Added, s)
		case same(was, s):
		case same(withSettings(was, s.Settings), s):
			c.Settings = append(c.Settings, s)
		default:
			c.Replaced = append(c.Replaced, s)
		}
	}
	for _, s := range old.Exports {
		if !kept[s.Name] {
			c.Removed = append(c.Removed, s.Name)
		}
	}
}

func withSettings(s spec.Spec, settings spec.Settings) spec.Spec {
	s.Settings = settings
	return s
}

// same compares what is meant: an empty list is as good as none.
func same(a, b spec.Spec) bool {
	return written(a) == written(b)
}

func written(s spec.Spec) string {
	var b strings.Builder
	if err := json.NewEncoder(&b).Encode(s); err != nil {
		panic(err) // there is nothing in a Spec that JSON cannot say
	}
	return b.String()
}

package config

import (
	"reflect"
	"slices"
)

// atOnce are the top-level keys that are looked at whenever they matter. The
// others have gone into sockets, mounts and servers.
var atOnce = []string{"log_level", "shutdown_timeout", "slow_request", "export"}

// NeedRestart gives the top-level keys in which two configurations differ and
// which a running daemon does not take up.
func NeedRestart(old, next *Config) []string {
	var keys []string
	a, b := reflect.ValueOf(old).Elem(), reflect.ValueOf(next).Elem()
	for i := range a.NumField() {
		name := a.Type().Field(i).Tag.Get("toml")
		if !slices.Contains(atOnce, name) && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			keys = append(keys, name)
		}
	}
	return keys
}

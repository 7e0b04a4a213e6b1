package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/gateway/spec"
)

func TestNeedRestart(t *testing.T) {
	old, next := Default(), Default()
	next.Exports = []spec.Spec{{Name: "new", URL: "/n"}}
	next.LogLevel, next.TLS.CA, next.NBD = "warn", "/ca", []string{}
	if diff := cmp.Diff([]string{"nbd", "tls"}, NeedRestart(old, next)); diff != "" {
		t.Error(diff)
	}
	if keys := NeedRestart(next, next); keys != nil {
		t.Errorf("%v", keys)
	}
}

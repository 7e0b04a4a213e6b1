package spec

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"sluice/block"
)

const everything = `
name = "db"
url = "/var/lib/images/db.raw"
format = "raw"
description = "a database"
read_only = true
direct = true
share = true
unlocked = true
nbd = ["unix:/run/db.sock"]
max_connections = 5
allow = ["host1"]
no_fuse = true
passthrough = true
slow_request = "1s"
faults = ["read:error=io"]

[on_error]
policy = "error"
limit = "1m30s"
no_space = true

[throttle]
read_iops = 100
write_iops = 200
read_bytes = "10M"
write_bytes = 4096
burst = "2s"
`

func all() Spec {
	return Spec{
		Name: "db", URL: "/var/lib/images/db.raw", Format: "raw", Description: "a database",
		ReadOnly: true, Direct: true, Share: true, Unlocked: true,
		NBD: []string{"unix:/run/db.sock"}, MaxConnections: 5, Allow: []string{"host1"}, NoFUSE: true, Passthrough: true,
		Settings: Settings{
			OnError:     OnError{Policy: "error", Limit: Duration(90 * time.Second), NoSpace: true},
			Throttle:    Throttle{ReadIOPS: 100, WriteIOPS: 200, ReadBytes: 10 << 20, WriteBytes: 4096, Burst: Duration(2 * time.Second)},
			SlowRequest: Duration(time.Second), Faults: []string{"read:error=io"},
		},
	}
}

// TestTOMLAndJSONMeanTheSame reads every field from TOML and takes it through
// JSON.
func TestTOMLAndJSONMeanTheSame(t *testing.T) {
	var got Spec
	if err := toml.NewDecoder(strings.NewReader(everything)).DisallowUnknownFields().Decode(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all(), got); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var again Spec
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all(), again); diff != "" {
		t.Errorf("through JSON: %s\n%s", diff, text)
	}
	back, err := toml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again = Spec{}
	if err := toml.Unmarshal(back, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all(), again); diff != "" {
		t.Errorf("through TOML: %s\n%s", diff, back)
	}
}

func TestCheckNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*Spec){
		"name":                 func(s *Spec) { s.Name = "a/b" },
		"url":                  func(s *Spec) { s.URL = "" },
		"max_connections":      func(s *Spec) { s.MaxConnections = -1 },
		"passthrough":          func(s *Spec) { s.Passthrough, s.NoFUSE = true, true },
		"on_error.policy":      func(s *Spec) { s.OnError.Policy = "wait" },
		"on_error.limit":       func(s *Spec) { s.OnError.Limit = -1 },
		"throttle.read_iops":   func(s *Spec) { s.Throttle.ReadIOPS = -1 },
		"throttle.write_iops":  func(s *Spec) { s.Throttle.WriteIOPS = -1 },
		"throttle.read_bytes":  func(s *Spec) { s.Throttle.ReadBytes = -1 },
		"throttle.write_bytes": func(s *Spec) { s.Throttle.WriteBytes = -1 },
		"throttle.burst":       func(s *Spec) { s.Throttle.Burst = -1 },
		"slow_request":         func(s *Spec) { s.SlowRequest = -1 },
	} {
		s := all()
		s.Passthrough = false
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		change(&s)
		err := s.Check()
		var f *FieldError
		if block.KindOf(err) != block.Invalid || !errors.As(err, &f) || f.Field != field || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a", "vm 1", "ü", "a.qcow2", strings.Repeat("x", 255)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b", "a\nb", "\xff", strings.Repeat("x", 256)} {
		if err := CheckName(name); block.KindOf(err) != block.Invalid || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

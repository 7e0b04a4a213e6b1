package httpapi

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/gateway"
	"sluice/gateway/httpapi/apitest"
	"sluice/gateway/spec"
)

// full are settings of which none has its default.
var full = spec.Settings{
	OnError: spec.OnError{Policy: "error", Limit: spec.Duration(time.Minute), NoSpace: true},
	Throttle: spec.Throttle{
		ReadIOPS: 1<<62 + 1, WriteIOPS: 2, ReadBytes: 1<<62 + 3, WriteBytes: 4, Burst: spec.Duration(5 * time.Second),
	},
	SlowRequest: spec.Duration(6 * time.Second),
	Faults:      []string{"read:hang", "write:torn"},
}

// withDisk starts a server with an export that has these settings.
func withDisk(t *testing.T, of spec.Settings, change func(*Config)) *bench {
	t.Helper()
	b := start(t, standardLimits, change)
	if _, err := b.fake.Add(t.Context(), spec.Spec{Name: "disk", URL: "/x", Settings: of}); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPatch: what is not given stays, null brings back the default.
func TestPatch(t *testing.T) {
	for patch, change := range map[string]func(*spec.Settings){
		`{}`:                                func(*spec.Settings) {},
		`{"throttle":{}}`:                   func(*spec.Settings) {},
		`{"throttle":{"read_iops":7}}`:      func(s *spec.Settings) { s.Throttle.ReadIOPS = 7 },
		`{"throttle":{"read_iops":0}}`:      func(s *spec.Settings) { s.Throttle.ReadIOPS = 0 },
		`{"throttle":{"read_iops":null}}`:   func(s *spec.Settings) { s.Throttle.ReadIOPS = 0 },
		`{"throttle":{"write_bytes":"8M"}}`: func(s *spec.Settings) { s.Throttle.WriteBytes = 8 << 20 },
		`{"throttle":{"write_bytes":null}}`: func(s *spec.Settings) { s.Throttle.WriteBytes = 0 },
		`{"throttle":null}`:                 func(s *spec.Settings) { s.Throttle = spec.Throttle{} },
		`{"on_error":{"policy":"hold"}}`:    func(s *spec.Settings) { s.OnError.Policy = "hold" },
		`{"on_error":{"policy":""}}`:        func(s *spec.Settings) { s.OnError.Policy = "" },
		`{"on_error":{"policy":null,"no_space":false}}`: func(s *spec.Settings) {
			s.OnError.Policy, s.OnError.NoSpace = "", false
		},
		`{"faults":[]}`:   func(s *spec.Settings) { s.Faults = nil },
		`{"faults":null}`: func(s *spec.Settings) { s.Faults = nil },
		`{"faults":["any:hang"],"slow_request":"1m30s"}`: func(s *spec.Settings) { s.Faults, s.SlowRequest = []string{"any:hang"}, spec.Duration(90*time.Second) },
	} {
		b := withDisk(t, full, nil)
		var st gateway.Status
		b.want(200, "PATCH", "/v1/exports/disk/settings", patch, &st)
		want := full
		change(&want)
		now, err := b.fake.Show("disk")
		if len(now.Spec.Faults) == 0 {
			now.Spec.Faults = nil
		}
		if diff := cmp.Diff(want, now.Spec.Settings); diff != "" || err != nil {
			t.Errorf("%s: %s%v", patch, diff, err)
		}
	}
}

// TestReplace: what is not given gets its default.
func TestReplace(t *testing.T) {
	b := withDisk(t, full, nil)
	var st gateway.Status
	b.want(200, "PUT", "/v1/exports/disk/settings", `{"throttle":{"read_iops":7}}`, &st)
	if diff := cmp.Diff(spec.Settings{Throttle: spec.Throttle{ReadIOPS: 7}}, st.Spec.Settings); diff != "" {
		t.Error(diff)
	}
}

// TestBadSettings are refused by both, and nothing is changed.
func TestBadSettings(t *testing.T) {
	b := withDisk(t, full, nil)
	for body, why := range map[string]string{
		`{"throttle":{"read_iops":-1}}`:               "throttle.read_iops is negative",
		`{"throttle":{"read_iops":1.5}}`:              "body.throttle.read_iops: expected integer",
		`{"throttle":{"read_iops":"many"}}`:           "body.throttle.read_iops: expected integer",
		`{"throttle":{"read_iops":1e30}}`:             "1e",
		`{"throttle":{"read_bytes":"10X"}}`:           `"10X" is not a size: unknown suffix "X"`,
		`{"throttle":{"read_bytes":-4}}`:              `"-4" is not a size`,
		`{"throttle":{"read_bytes":true}}`:            `"true" is not a size`,
		`{"throttle":{"burst":"soon"}}`:               `"soon" is not a duration (30s, 5m, 1h)`,
		`{"throttle":{"burst":5}}`:                    "body.throttle.burst: expected string",
		`{"throttle":{"burst":"-1s"}}`:                "throttle.burst is negative",
		`{"throttle":{"reads":1}}`:                    "body.throttle.reads: unexpected property",
		`{"Throttle":{}}`:                             "body.Throttle: unexpected property",
		`{"throttle":7}`:                              "body.throttle: expected object",
		`{"on_error":{"policy":"ignore"}}`:            `on_error.policy "ignore" is none of hold, error and read-only`,
		`{"on_error":{"limit":"1 hour"}}`:             `"1 hour" is not a duration`,
		`{"name":"other"}`:                            "body.name: unexpected property",
		`{"faults":"x"}`:                              "body.faults: expected array",
		`{"faults":[1]}`:                              "body.faults[0]: expected string",
		`null`:                                        "body: expected object",
		`[]`:                                          "body: expected object",
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1}`: "; and 2 mistakes more",
	} {
		for _, method := range []string{"PUT", "PATCH"} {
			if p := b.fails(422, method, "/v1/exports/disk/settings", body); p.Kind != "invalid" || !strings.Contains(p.Detail, why) {
				t.Errorf("%s %s: %s, want %s", method, body, p.Detail, why)
			}
		}
	}
	if now, err := b.fake.Show("disk"); err != nil || cmp.Diff(full, now.Spec.Settings) != "" {
		t.Errorf("%+v, %v", now, err)
	}
	b.fails(404, "PATCH", "/v1/exports/none/settings", `{}`)
	b.fails(404, "PUT", "/v1/exports/none/settings", `{}`)
}

// TestPatchesAtOnce: each of many changes that are made at the same time is there
// at the end.
func TestPatchesAtOnce(t *testing.T) {
	b := withDisk(t, spec.Settings{}, nil)
	var wg sync.WaitGroup
	for _, patch := range []string{
		`{"throttle":{"read_iops":1}}`, `{"throttle":{"write_iops":2}}`, `{"throttle":{"read_bytes":3}}`, `{"throttle":{"write_bytes":4}}`,
		`{"throttle":{"burst":"5s"}}`, `{"slow_request":"6s"}`, `{"on_error":{"policy":"error"}}`, `{"on_error":{"limit":"7s"}}`,
	} {
		for range 8 {
			wg.Go(func() { b.want(200, "PATCH", "/v1/exports/disk/settings", patch, &gateway.Status{}) })
		}
	}
	wg.Wait()
	now, err := b.fake.Show("disk")
	want := spec.Settings{
		OnError:     spec.OnError{Policy: "error", Limit: spec.Duration(7 * time.Second)},
		Throttle:    spec.Throttle{ReadIOPS: 1, WriteIOPS: 2, ReadBytes: 3, WriteBytes: 4, Burst: spec.Duration(5 * time.Second)},
		SlowRequest: spec.Duration(6 * time.Second),
	}
	if diff := cmp.Diff(want, now.Spec.Settings); diff != "" || err != nil {
		t.Error(diff, err)
	}
	b.srv.turns.mu.Lock()
	defer b.srv.turns.mu.Unlock()
	if n := len(b.srv.turns.queues); n != 0 {
		t.Errorf("%d turns are left", n)
	}
}

// TestTurns: a change that takes long holds up changes of the same export alone,
// and those only as long as their clients wait.
func TestTurns(t *testing.T) {
	entered, goOn := make(chan struct{}), make(chan struct{})
	b := withDisk(t, spec.Settings{}, func(c *Config) {
		c.Gateway.(*apitest.Fake).Hook = func(_ context.Context, op, name string) error {
			if op == "change" && name == "disk" {
				close(entered)
				<-goOn
			}
			return nil
		}
	})
	if _, err := b.fake.Add(t.Context(), spec.Spec{Name: "other", URL: "/x"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.want(200, "PUT", "/v1/exports/disk/settings", `{}`, &gateway.Status{})
	}()
	<-entered
	b.want(200, "PUT", "/v1/exports/other/settings", `{}`, &gateway.Status{})
	b.want(200, "GET", "/v1/exports/disk", "", &gateway.Status{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.srv.turns.take(ctx, "disk"); err == nil {
		t.Error("there are two turns at once")
	}
	close(goOn)
	<-done
}

func TestAnySizeIsRead(t *testing.T) {
	b := withDisk(t, spec.Settings{}, nil)
	for _, size := range []string{"1073741824", `"1G"`, `"1GiB"`, `"1073741824"`} {
		var st gateway.Status
		b.want(200, "POST", "/v1/exports/disk/resize", fmt.Sprintf(`{"size":%s}`, size), &st)
		if st.Size != 1<<30 {
			t.Errorf("%s: %d", size, st.Size)
		}
	}
	b.fails(422, "POST", "/v1/exports/disk/resize", `{}`)
	b.fails(422, "POST", "/v1/exports/disk/resize", `{"size":"huge"}`)
}

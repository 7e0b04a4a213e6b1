//go:build interop

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// pace is what fio makes of an export.
type pace struct {
	iops, bytes float64 // a second
	p99         time.Duration
}

// runLoad has fio read or write at random for some seconds.
func runLoad(t *testing.T, uri, rw, bs string, seconds int) pace {
	t.Helper()
	lab.Need(t, "fio")
	result := filepath.Join(t.TempDir(), "fio.json")
	lab.Run(t, "fio", "--name=load", "--ioengine=nbd", "--uri="+uri, "--rw="+rw, "--bs="+bs, "--iodepth=16", "--size=64M",
		"--time_based", "--runtime="+strconv.Itoa(seconds), "--output-format=json", "--output="+result)
	data, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	type side struct {
		IOPS  float64 `json:"iops"`
		Bytes float64 `json:"bw_bytes"`
		Lat   struct {
			Percentile map[string]int64 `json:"percentile"`
		} `json:"clat_ns"`
	}
	var report struct{ Jobs []struct{ Read, Write side } }
	if err := json.Unmarshal(data, &report); err != nil || len(report.Jobs) != 1 {
		t.Fatalf("fio: %v\n%s", err, data)
	}
	s := report.Jobs[0].Read
	if s.IOPS == 0 {
		s = report.Jobs[0].Write
	}
	return pace{s.IOPS, s.Bytes, time.Duration(s.Lat.Percentile["99.000000"])}
}

// TestThrottleIsExact: over ten seconds, as fio counts. It is never more than is set,
// however busy the machine is.
func TestThrottleIsExact(t *testing.T) {
	lab.Need(t, "qemu-io")
	d := newDaemonAt(t)
	set := func(name string, flags ...string) {
		lab.Run(t, lab.Sluice(t), append([]string{"export", "--api", "unix:" + d.at("api"), "set", name}, flags...)...)
	}
	for _, c := range []struct {
		name, rw, bs string
		flags        []string
		of           func(pace) float64
		want         float64
	}{
		{"read-iops", "randread", "4k", []string{"--read-iops", "1500"}, func(l pace) float64 { return l.iops }, 1500},
		{"write-iops", "randwrite", "4k", []string{"--write-iops", "800"}, func(l pace) float64 { return l.iops }, 800},
		{"read-bytes", "read", "64k", []string{"--read-bytes", "40M"}, func(l pace) float64 { return l.bytes }, 40 << 20},
		{"write-bytes", "write", "256k", []string{"--write-bytes", "20M", "--write-iops", "0"}, func(l pace) float64 { return l.bytes }, 20 << 20},
	} {
		uri := d.add(c.name, 64, spec.Settings{})
		lab.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 90 0 64M", uri) // holes are not read
		set(c.name, "--read-iops", "7", "--write-iops", "7")
		set(c.name, c.flags...)
		if c.name == "read-bytes" {
			set(c.name, "--read-iops", "0")
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			least := 0.95
			if !lab.Quiet() {
				least = 0.5 // fio and the daemon share the processors with other tests
			}
			var got float64
			for try := 0; try < 3 && got < 0.95*c.want; try++ { // once, unless the machine is busy
				got = max(got, c.of(runLoad(t, uri, c.rw, c.bs, 10)))
				t.Logf("%.0f a second, set to %.0f: %+.1f %%", got, c.want, 100*(got/c.want-1))
			}
			if got < least*c.want || got > 1.05*c.want {
				t.Errorf("less than %.2f or more than 1.05 of what it is set to", least)
			}
		})
	}
}

// TestHoldOutage: a storage that fails for twenty seconds gives its client no error,
// and no reason to connect again; another export does not notice.
func TestHoldOutage(t *testing.T) {
	d := newDaemonAt(t, "--allow-faults")
	a, b := d.add("a", 64, spec.Settings{}), d.add("b", 64, spec.Settings{})
	fio := lab.StartFio(t, lab.FioConfig{URI: a, Runtime: 32 * time.Second})
	before := runLoad(t, b, "randread", "4k", 5)
	began := time.Now()
	lab.Run(t, lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "set", "a", "--fault", "any:error=transient,for=20s")
	st := d.awaitState("a", gateway.Held)
	if st.Error == "" || st.Connections != 1 {
		t.Errorf("%+v", st)
	}
	during := runLoad(t, b, "randread", "4k", 10)
	if now, err := d.client().Show(t.Context(), "b"); err != nil || now.State != gateway.Serving {
		t.Errorf("the neighbour: %+v, %v", now, err)
	}
	d.awaitStateAfter("a", gateway.Serving, st)
	lasted := time.Since(began)
	r := fio.Finish()
	t.Logf("held for %.1f s; the client's longest request took %.1f s, %d blocks verified; the neighbour's p99 %v before, %v meanwhile",
		lasted.Seconds(), r.Longest().Seconds(), r.Reads, before.p99, during.p99)
	if r.Longest() < 15*time.Second || lasted < 19*time.Second {
		t.Error("there was hardly an outage")
	}
	// Before, the client of the other export competed for the processors. A neighbour that waits for the held export
	// waits for seconds, and does next to nothing.
	lab.Goal(t, "the neighbour's p99", during.p99, 2*before.p99, 2*before.p99+2*time.Second)
	if during.iops < before.iops/10 {
		t.Errorf("the neighbour had %.0f requests a second before, and %.0f meanwhile", before.iops, during.iops)
	}
	stats, err := d.client().Stats(t.Context(), "a")
	if err != nil || len(stats) != 1 {
		t.Fatal(err)
	}
	for _, op := range stats[0].Ops {
		if op.Errors > 0 {
			t.Errorf("%+v", op)
		}
	}
}

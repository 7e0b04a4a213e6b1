package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// fioResult is what a sample takes from fio's JSON output.
type fioResult struct {
	ops, bytes int64
	seconds    float64
	p50, p99   float64 // µs
}

// fioSide is one direction of one job in fio's JSON.
type fioSide struct {
	Bytes     int64 `json:"io_bytes"`
	Ops       int64 `json:"total_ios"`
	RuntimeMs int64 `json:"runtime"`
	Latency   struct {
		Percentile map[string]float64 `json:"percentile"` // ns
	} `json:"clat_ns"`
}

type fioOutput struct {
	Jobs []struct {
		Error int     `json:"error"`
		Read  fioSide `json:"read"`
		Write fioSide `json:"write"`
	} `json:"jobs"`
}

// parseFio reads the output of a run with --group_reporting --output-format=json. The nbd engine writes lines of its own
// to standard output before the JSON starts.
func parseFio(out []byte) (fioResult, error) {
	begin := bytes.Index(out, []byte("{\n"))
	if begin < 0 {
		return fioResult{}, fmt.Errorf("no JSON in the output of fio: %.200q", out)
	}
	var o fioOutput
	if err := json.Unmarshal(out[begin:], &o); err != nil {
		return fioResult{}, fmt.Errorf("output of fio: %w", err)
	}
	if len(o.Jobs) != 1 {
		return fioResult{}, fmt.Errorf("output of fio has %d groups of jobs, not 1", len(o.Jobs))
	}
	j := o.Jobs[0]
	if j.Error != 0 {
		return fioResult{}, fmt.Errorf("fio ended with error %d", j.Error)
	}
	r := fioResult{
		ops: j.Read.Ops + j.Write.Ops, bytes: j.Read.Bytes + j.Write.Bytes,
		seconds: float64(max(j.Read.RuntimeMs, j.Write.RuntimeMs)) / 1000,
	}
	if r.ops == 0 || r.seconds == 0 {
		return fioResult{}, errors.New("fio did no I/O")
	}
	side := j.Read
	if side.Ops == 0 {
		side = j.Write
	}
	r.p50, r.p99 = side.Latency.Percentile["50.000000"]/1000, side.Latency.Percentile["99.000000"]/1000
	return r, nil
}

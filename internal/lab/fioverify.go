package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// FioVerify is a running fio that writes to an export or a file again and again,
// each time other data, and soon reads back and verifies what it has written.
type FioVerify struct {
	t      TB
	p      *Proc
	result string // file
	limit  time.Duration
}

// FioConfig says on what fio works, and for how long. One of URI and File is
// set.
type FioConfig struct {
	URI  string // an export of an NBD server
	File string // a file or block device, opened with O_DIRECT

	Engine string // fio's way to a file; "" means libaio

	// Size is how many bytes at the start are written; 0 means 64 MiB. Each
	// time all of them are, in blocks of Block bytes (0 means 16 KiB).
	Size, Block int64

	Runtime time.Duration // of the work, which ends with a last look at what was written
	Depth   int           // requests in flight; 0 means 16
}

// FioReport is what fio did and saw.
type FioReport struct {
	Writes, Reads int64 // a block each; every read was verified
	Flushes       int64
	// Longest are the longest completion latencies.
	LongestWrite, LongestRead, LongestFlush time.Duration
}

// Longest is the longest time that any request took.
func (r FioReport) Longest() time.Duration {
	return max(r.LongestWrite, r.LongestRead, r.LongestFlush)
}

// StartFio starts fio and returns when it has told of its first requests, about
// a second later, or has ended.
func StartFio(t TB, cfg FioConfig) *FioVerify {
	t.Helper()
	Need(t, "fio")
	v := &FioVerify{t: t, result: filepath.Join(t.TempDir(), "fio.json"), limit: cfg.Runtime + exitTimeout}
	v.p = Start(t, "fio", cfg.args(v.result)...)
	// One that has failed already has a lot to say, which is for Finish.
	for deadline := time.Now().Add(lineTimeout); !strings.Contains(v.p.Output(), "IOPS]") && !v.p.waited(10*time.Millisecond); {
		if time.Now().After(deadline) {
			t.Fatalf("fio did nothing for %v", lineTimeout)
		}
	}
	return v
}

// args returns fio's arguments.
func (c FioConfig) args(result string) []string {
	where := []string{"--ioengine=nbd", "--uri=" + c.URI}
	if c.File != "" {
		// A colon would separate several files.
		engine := c.Engine
		if engine == "" {
			engine = "libaio"
		}
		where = []string{"--ioengine=" + engine, "--direct=1", "--filename=" + strings.ReplaceAll(c.File, ":", `\:`)}
	}
	size, block := withDefault64(c.Size, 64<<20), withDefault64(c.Block, 16<<10)
	return append(where, "--name=verify", "--thread",
		"--rw=randwrite", "--size="+strconv.FormatInt(size, 10), "--bs="+strconv.FormatInt(block, 10),
		"--iodepth="+strconv.Itoa(withDefault(c.Depth, 16)), "--serialize_overlap=1", "--fsync=256",
		// Each block carries the number of its write. With --time_based fio would not look at it, and a lost write
		// would pass for the one before it.
		"--loops=1000000", fmt.Sprintf("--runtime=%dms", c.Runtime.Milliseconds()),
		"--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1", "--verify_state_save=0",
		"--eta=always", "--eta-newline=1", "--output-format=json", "--output="+result)
}

func withDefault64(n, otherwise int64) int64 {
	if n == 0 {
		return otherwise
	}
	return n
}

// Proc returns fio itself.
func (v *FioVerify) Proc() *Proc { return v.p }

// Running reports whether fio still works.
func (v *FioVerify) Running() bool { return !v.p.exited() }

// Finish waits for the end and returns what fio tells. The test fails when a
// request failed or something else was read than had been written.
func (v *FioVerify) Finish() FioReport {
	v.t.Helper()
	if err := v.p.WaitFor(v.limit); err != nil {
		v.t.Fatalf("fio: %v\n%s", err, v.complaints())
	}
	data, err := os.ReadFile(v.result)
	if err != nil {
		v.t.Fatalf("fio: %v", err)
	}
	r, err := parseFioReport(data)
	if err != nil {
		v.t.Fatalf("fio: %v\n%s", err, v.complaints())
	}
	return r
}

// complaints are the lines of fio's output that are no progress.
func (v *FioVerify) complaints() string {
	var lines []string
	for line := range strings.FieldsFuncSeq(v.p.Output(), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if !strings.HasPrefix(line, "Jobs:") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// fioSide is one kind of requests in fio's result.
type fioSide struct {
	Count   int64                 `json:"total_ios"`
	Clat    struct{ Max float64 } `json:"clat_ns"`
	Latency struct{ Max float64 } `json:"lat_ns"`
}

// parseFioReport reads fio's result. A run that did nothing of one kind has
// proven nothing.
func parseFioReport(data []byte) (FioReport, error) {
	var out struct {
		Jobs []struct {
			Error             int
			Read, Write, Sync fioSide
		}
	}
	// Lines of the nbd engine may come before.
	text := string(data)
	if err := json.Unmarshal(data[max(strings.Index(text, "{\n"), 0):], &out); err != nil {
		return FioReport{}, err
	}
	if len(out.Jobs) != 1 || out.Jobs[0].Error != 0 {
		return FioReport{}, fmt.Errorf("the result has %d jobs with errors: %+v", len(out.Jobs), out.Jobs)
	}
	j := out.Jobs[0]
	r := FioReport{
		Writes: j.Write.Count, Reads: j.Read.Count, Flushes: j.Sync.Count,
		LongestWrite: time.Duration(j.Write.Clat.Max), LongestRead: time.Duration(j.Read.Clat.Max),
		LongestFlush: time.Duration(j.Sync.Latency.Max),
	}
	if r.Writes == 0 || r.Reads == 0 || r.Flushes == 0 {
		return r, fmt.Errorf("too little was done: %+v", r)
	}
	return r, nil
}

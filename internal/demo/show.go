package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sluice/internal/lab"
)

// show runs the demo, in the order of a user's first day: create, serve, boot,
// measure, look at the metrics, stop.
func show(t lab.TB, out io.Writer) {
	lab.Need(t, "qemu-system-x86_64", "fio", "nbdinfo", "nbdcopy")
	d := &demo{t: t, out: out, bin: lab.Sluice(t), dir: t.TempDir()}
	d.image = filepath.Join(d.dir, "disk.img")
	d.create()
	d.serve()
	d.boot()
	d.measure()
	d.lookAtMetrics()
	d.stop()
}

// demo is what the steps hand on.
type demo struct {
	t       lab.TB
	out     io.Writer
	bin     string // the sluice binary
	dir     string
	image   string
	uri     string // of the export
	metrics string // HOST:PORT
	server  *lab.Proc
}

// step prints a headline.
func (d *demo) step(format string, args ...any) {
	fmt.Fprintf(d.out, "\n== "+format+"\n", args...)
}

// say prints what came of it, a line or more.
func (d *demo) say(text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		fmt.Fprintf(d.out, "   %s\n", strings.TrimRight(line, "\r\n"))
	}
}

// create makes a sparse image.
func (d *demo) create() {
	d.step("sluice create disk.img --size 2G")
	d.say(lab.Run(d.t, d.bin, "create", d.image, "--size", "2G"))
	d.say(lab.Run(d.t, d.bin, "info", d.image))
}

// serve starts the server and has a client of libnbd look at it.
func (d *demo) serve() {
	sock := lab.Socket(d.t)
	d.metrics = d.freePort()
	d.step("sluice serve disk.img --nbd unix:%s --metrics %s", sock, d.metrics)
	d.server = lab.Start(d.t, d.bin, "serve", d.image, "--nbd", "unix:"+sock, "--metrics", d.metrics)
	d.uri = d.server.Ready()
	d.say("ready " + d.uri)
	d.step("nbdinfo --no-content")
	d.say(lab.Run(d.t, "nbdinfo", "--no-content", d.uri))
}

// freePort returns an address of this machine that nobody listens on.
func (d *demo) freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatalf("find a free port: %v", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// boot starts a guest on the export and shows what it says.
func (d *demo) boot() {
	d.step("a guest under QEMU (without KVM) boots and uses the export as its disk")
	start := time.Now()
	guest := lab.StartGuest(d.t, lab.GuestConfig{Disks: []string{d.uri}})
	for _, line := range []string{"GUEST-UP", "sequential write", "sequential read", "read back", "discarded", "GUEST-OK"} {
		d.say(guest.Expect(line))
	}
	if err := guest.Wait(); err != nil {
		d.t.Fatalf("QEMU: %v", err)
	}
	lab.CheckGuest(d.t, guest)
	d.say(fmt.Sprintf("powered off after %.0f s", time.Since(start).Seconds()))
}

// measure has fio and nbdcopy use the export for a few seconds.
func (d *demo) measure() {
	d.step("fio over the same socket, one connection")
	d.fio("write", "sequential write, 1 MiB", "--bs=1M", "--iodepth=4")
	d.fio("read", "sequential read, 1 MiB", "--bs=1M", "--iodepth=4")
	d.fio("randread", "random read, 4 KiB, 16 deep", "--bs=4k", "--iodepth=16")
	d.fio("randwrite", "random write, 4 KiB, 16 deep", "--bs=4k", "--iodepth=16")
	d.step("nbdcopy copies the disk to a file, which must be equal to the image")
	file := filepath.Join(d.dir, "copy.img")
	start := time.Now()
	lab.Run(d.t, "nbdcopy", d.uri, file)
	took := time.Since(start)
	lab.Run(d.t, "cmp", d.image, file)
	d.say(fmt.Sprintf("equal; 2 GiB, most of it holes, in %.2f s", took.Seconds()))
}

// fioReport is the part of fio's JSON that the demo shows.
type fioReport struct {
	Jobs []struct {
		Error       int
		Read, Write fioDirection
	}
}

type fioDirection struct {
	Bytes   float64 `json:"bw_bytes"` // per second
	IOPS    float64
	Latency struct{ Mean float64 } `json:"clat_ns"`
}

// fio runs one load for two seconds.
func (d *demo) fio(rw, what string, args ...string) {
	report := filepath.Join(d.dir, "fio.json")
	lab.Run(d.t, "fio", append(args, "--name="+rw, "--rw="+rw, "--ioengine=nbd", "--uri="+d.uri, "--size=256M",
		"--runtime=2", "--time_based", "--output-format=json", "--output="+report)...)
	text, err := os.ReadFile(report)
	if err != nil {
		d.t.Fatalf("fio: %v", err)
	}
	var r fioReport
	if err := json.Unmarshal(text, &r); err != nil || len(r.Jobs) != 1 || r.Jobs[0].Error != 0 {
		d.t.Fatalf("fio's report: %v\n%s", err, text)
	}
	dir := r.Jobs[0].Read
	if strings.HasSuffix(rw, "write") {
		dir = r.Jobs[0].Write
	}
	d.say(fmt.Sprintf("%-30s %8.0f requests/s %8.1f MiB/s   mean latency %6.0f us", what, dir.IOPS, dir.Bytes/(1<<20), dir.Latency.Mean/1000))
}

// shown are the beginnings of the metrics that the demo prints.
var shown = []string{
	"sluice_requests_total{", "sluice_request_bytes_total{", "sluice_request_errors_total{", "sluice_connections_total{",
	"process_cpu_seconds_total", "process_resident_memory_bytes",
}

// lookAtMetrics prints a few of the server's metrics.
func (d *demo) lookAtMetrics() {
	d.step("http://%s/metrics, some of it", d.metrics)
	resp, err := http.Get("http://" + d.metrics + "/metrics")
	if err != nil {
		d.t.Fatalf("metrics: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := 0
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		for _, prefix := range shown {
			if strings.HasPrefix(s.Text(), prefix) && !strings.HasSuffix(s.Text(), " 0") {
				d.say(s.Text())
				lines++
			}
		}
	}
	if resp.StatusCode != http.StatusOK || lines < 4 {
		d.t.Fatalf("metrics: status %s, %d of the expected lines", resp.Status, lines)
	}
}

// stop ends the server as a service manager would.
func (d *demo) stop() {
	d.step("SIGTERM")
	if err := d.server.Stop(); err != nil {
		d.t.Fatalf("the server did not end well: %v", err)
	}
	info, err := os.Stat(d.image)
	if err != nil {
		d.t.Fatalf("the image: %v", err)
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		d.say(fmt.Sprintf("the server ended with exit code 0; the image of %d MiB takes %d MiB of disk", info.Size()>>20, sys.Blocks*512>>20))
	}
}

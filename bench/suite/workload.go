// Package suite runs the benchmark: it starts one server after the other, drives it with clients that nobody here
// wrote (fio's nbd engine and nbdcopy), and samples rate, latency, CPU and memory.
//
// It is called by the bench command. Everything happens on the caller's goroutine, one measurement at a time; the only
// other goroutines wait for a started server's exit and are owned by its process, whose stop waits for them.
package suite

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/bench/report"
)

// Workload is what a client does to a server.
type Workload struct {
	report.Workload
	fio      []string // fio's arguments for the access pattern; empty for a copy
	block    int64    // bytes per request
	from, to string   // what a program copies from and to, with {socket}, {source} or {copy} in it; empty for other work
	write    bool     // changes the file, so that it has to be written back before the next sample
	fileOnly bool     // left out for servers in memory, to keep the run short
	direct   bool     // put to files that are opened with O_DIRECT too
	onlyFuse bool     // and to nothing else
}

// Workloads lists all of them in the order of the tables. Depth is the number of requests in flight over all
// connections: rr64x4 is four connections with 16 each.
func Workloads() []Workload {
	const small, large = 4 << 10, 1 << 20
	ws := []Workload{
		fioLoad("sr1", "1 MiB sequential read, depth 1", access{"read", large, 1, 1}),
		fioLoad("sr4", "1 MiB sequential read, depth 4", access{"read", large, 4, 1}),
		fioLoad("sw1", "1 MiB sequential write, depth 1", access{"write", large, 1, 1}),
		fioLoad("rr1", "4 KiB random read, depth 1", access{"randread", small, 1, 1}),
		fioLoad("rr16", "4 KiB random read, depth 16", access{"randread", small, 16, 1}),
		fioLoad("rr64", "4 KiB random read, depth 64", access{"randread", small, 64, 1}),
		fioLoad("rw16", "4 KiB random write, depth 16", access{"randwrite", small, 16, 1}),
		fioLoad("sw4", "1 MiB sequential write, depth 4", access{"write", large, 4, 1}),
		fioLoad("mx32", "4 KiB random 70/30 mix, depth 32", access{"randrw", small, 32, 1}),
		fioLoad("sr4x4", "1 MiB sequential read, depth 4, 4 connections", access{"read", large, 4, 4}),
		fioLoad("sw4x4", "1 MiB sequential write, depth 4, 4 connections", access{"write", large, 4, 4}),
		fioLoad("rr4x4", "4 KiB random read, depth 4, 4 connections", access{"randread", small, 4, 4}),
		fioLoad("rr16x4", "4 KiB random read, depth 16, 4 connections", access{"randread", small, 16, 4}),
		fioLoad("rr64x4", "4 KiB random read, depth 64, 4 connections", access{"randread", small, 64, 4}),
		fioLoad("rw16x4", "4 KiB random write, depth 16, 4 connections", access{"randwrite", small, 16, 4}),
		fioLoad("mx32x4", "4 KiB random 70/30 mix, depth 32, 4 connections", access{"randrw", small, 32, 4}),
		copyLoad("cr1", false, 1),
		copyLoad("cr4", false, 4),
		copyLoad("cw1", true, 1),
		copyLoad("cw4", true, 4),
		transfer("n2f", "from an NBD export to a new file", exportURI, "{copy}"),
		transfer("f2n", "from a file to an NBD export", "{source}", exportURI),
	}
	for i := range ws {
		w := &ws[i]
		w.fileOnly = w.Copy || w.Connections > 1 || w.Name == "mx32"
		w.direct = !w.fileOnly && w.Name != "rr64"
		if w.onlyFuse = w.Name == "sw4"; w.onlyFuse {
			w.Command = "fio " + strings.Join(w.fioArgs(target{file: "{file}", direct: true, size: "{size}", runtime: "{time}"}), " ")
		}
	}
	return ws
}

// access is an access pattern of fio.
type access struct {
	rw                 string
	block              int64
	depth, connections int
}

func fioLoad(name, title string, a access) Workload {
	args := []string{
		"--rw=" + a.rw, "--bs=" + sizeText(a.block),
		"--iodepth=" + strconv.Itoa(a.depth/a.connections), "--numjobs=" + strconv.Itoa(a.connections),
	}
	if a.rw == "randrw" {
		args = append(args, "--rwmixread=70")
	}
	w := Workload{fio: args, block: a.block, write: strings.Contains(a.rw, "w")}
	w.Workload = report.Workload{Name: name, Title: title, Unit: report.PerOp, Connections: a.connections}
	if a.block >= 1<<20 {
		w.Unit = report.PerGiB
	}
	w.Command = "fio " + strings.Join(w.fioArgs(target{socket: "{socket}", size: "{size}", part: "{part}", runtime: "{time}"}), " ")
	return w
}

// target says what a client is to work on, as text so that the same code prints the documented command.
type target struct {
	socket, export      string
	file                string // instead of the socket: fio works on the file
	direct              bool   // past the page cache
	size, part, runtime string
}

// fioArgs returns fio's arguments. Each job is one connection and a thread, not a process, so that one kill ends it. With several
// jobs each works on a part of its own of the image. There is no map of the blocks that were already used: it would
// cost the client more than the request.
func (w Workload) fioArgs(t target) []string {
	args := []string{"--name=" + w.Name, "--ioengine=nbd", "--uri=" + uri(t.socket, t.export)}
	switch { // --invalidate=0 keeps the page cache
	case t.direct:
		// io_uring hands each request on a FUSE file to a thread first, since the kernel does not know whether it would
		// wait: with one in flight that halves the rate. libaio submits it as it is, as QEMU's aio=native does.
		args = append(args[:1], "--ioengine=libaio", "--direct=1", "--filename="+t.file, "--invalidate=0")
	case t.file != "":
		args = append(args[:1], "--ioengine=io_uring", "--filename="+t.file, "--invalidate=0")
	}
	args = append(args, w.fio...)
	if w.Connections > 1 {
		args = append(args, "--size="+t.part, "--offset_increment="+t.part)
	} else {
		args = append(args, "--size="+t.size)
	}
	return append(args, "--time_based", "--runtime="+t.runtime, "--norandommap", "--thread", "--group_reporting",
		"--output-format=json")
}

func copyLoad(name string, write bool, connections int) Workload {
	title := "nbdcopy, read"
	if write {
		title = "nbdcopy, write from a file"
	}
	w := Workload{write: write}
	w.Workload = report.Workload{
		Name: name, Title: fmt.Sprintf("%s, %s", title, plural(connections, "connection")), Unit: report.PerGiB,
		Connections: connections, Copy: true,
	}
	w.Command = "nbdcopy " + strings.Join(w.copyArgs("{socket}", "{source}"), " ")
	return w
}

// exportURI is the export that programs which copy all use.
var exportURI = uri("{socket}", "")

// transfer is what the programs that copy are put to. The program is another for each sample, the server the same.
func transfer(name, what, from, to string) Workload {
	w := Workload{from: from, to: to, write: to == exportURI}
	w.Workload = report.Workload{
		Name: name, Title: "copy " + what, Unit: report.PerGiB, Connections: 1, Copy: true,
		Command: "{from} is " + from + ", {to} is " + to + "; served by " + exporter().Command,
	}
	return w
}

// copyArgs returns nbdcopy's arguments; source is the file that a writing copy reads.
func (w Workload) copyArgs(socket, source string) []string {
	connections := "--connections=" + strconv.Itoa(w.Connections)
	if w.write {
		return []string{connections, source, uri(socket, "")}
	}
	return []string{connections, uri(socket, ""), "null:"}
}

// suits tells whether the workload is run on servers of the given kind.
func (w Workload) suits(k report.Kind) bool {
	switch {
	case k == report.Copier || w.from != "":
		return k == report.Copier && w.from != ""
	case k == report.Fuse || k == report.Direct:
		return w.direct
	case w.onlyFuse:
		return false
	case k == report.File:
		return true
	case k == report.NFS:
		return !w.Copy
	case k == report.Local:
		return !w.Copy && w.Connections == 1
	}
	return !w.fileOnly
}

// Select returns the workloads named in a list separated by commas, in their usual order; an empty list means all.
func Select(list string) ([]Workload, error) {
	all := Workloads()
	if list == "" {
		return all, nil
	}
	names := strings.Split(list, ",")
	var out []Workload
	var known []string
	for _, w := range all {
		known = append(known, w.Name)
		if slices.Contains(names, w.Name) {
			out = append(out, w)
		}
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("unknown workload %q; there are %s", n, strings.Join(known, ", "))
		}
	}
	return out, nil
}

// uri is where clients find an export at a unix socket; "" is the default export.
func uri(socket, export string) string { return "nbd+unix:///" + export + "?socket=" + socket }

func sizeText(n int64) string {
	if n >= 1<<20 {
		return strconv.FormatInt(n>>20, 10) + "m"
	}
	return strconv.FormatInt(n>>10, 10) + "k"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

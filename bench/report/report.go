// Package report turns the samples of a benchmark run into what people and programs read: medians and spreads,
// ratios, Markdown tables, an SVG plot, JSON, and the verdict on the project's own speed targets.
//
// It is called by the bench command only, starts no goroutine and holds no lock: a Report is a value that one
// goroutine fills and then renders. Everything rendered is ordered by the Servers and Workloads lists, never by map
// order, so that the results of two runs can be compared line by line.
package report

import "fmt"

// Report is one whole run. Its JSON form is results.json.
type Report struct {
	Date      string     `json:"date"` // RFC 3339, UTC
	Machine   Machine    `json:"machine"`
	Settings  Settings   `json:"settings"`
	Programs  []Program  `json:"programs"`
	Servers   []Server   `json:"servers"`
	Workloads []Workload `json:"workloads"`
	Samples   []Sample   `json:"samples"`
}

// Machine says where the run took place.
type Machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	MemoryMiB  int64  `json:"memory_mib"`
	Kernel     string `json:"kernel"`
	System     string `json:"system"`
	FileSystem string `json:"file_system"` // type of the file system that held the image
}

// Settings says how the run was made.
type Settings struct {
	Repetitions int     `json:"repetitions"`
	Seconds     float64 `json:"seconds"` // per sample
	SizeBytes   int64   `json:"size_bytes"`
	Seed        uint64  `json:"seed"`
}

// Program is a program that took part, with the first line of its version.
type Program struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Kind tells what a server keeps its bytes in. Only servers of one kind are compared with each other.
type Kind string

// The kinds of servers.
const (
	File Kind = "file" // the same page-cached file for all
	Mem  Kind = "mem"  // memory of the server
	Null Kind = "null" // nothing: the limit of client and socket
	// Local is no server at all: the client works on the same file itself, which is the limit of the file system.
	Local Kind = "local"
	// Copier is no server but a program that copies between a file and the same server's export for all. What a sample
	// calls the server's CPU and memory are this program's.
	Copier Kind = "copier"
	// Fuse is a file that a server shows through FUSE, with the same page-cached file behind it. Clients open it with
	// O_DIRECT, so that each of their requests reaches the server.
	Fuse Kind = "fuse"
	// NFS is the same page-cached file behind the same NFS server for all, as the kind of storage that a server has it from.
	NFS Kind = "nfs"
	// Direct is no server at all: the client opens the same file itself with O_DIRECT, which is the limit of the disk.
	Direct Kind = "direct"
)

// Server is one configuration under test.
type Server struct {
	Name    string `json:"name"`
	Kind    Kind   `json:"kind"`
	Command string `json:"command"` // as run, with {socket}, {file}, {size} for what changes
	Note    string `json:"note,omitempty"`
	// Against names the server of which this is a variation, to be compared with that one alone; "" for all others.
	Against string `json:"against,omitempty"`
}

// Workload is one column of the tables.
type Workload struct {
	Name        string `json:"name"`
	Title       string `json:"title"`
	Command     string `json:"command"`
	Unit        Unit   `json:"unit"`
	Connections int    `json:"connections"`
	Copy        bool   `json:"copy,omitempty"` // by nbdcopy instead of fio
}

// Unit says how a workload's rate and cost are told.
type Unit string

// The units: requests per second with µs of CPU per request, or MiB per second with seconds of CPU per GiB.
const (
	PerOp  Unit = "op"
	PerGiB Unit = "gib"
)

// Sample is one measurement of one server under one workload.
type Sample struct {
	Server     string  `json:"server"`
	Workload   string  `json:"workload"`
	Repetition int     `json:"repetition"` // from 1
	Error      string  `json:"error,omitempty"`
	Seconds    float64 `json:"seconds"`
	Ops        int64   `json:"ops"`
	Bytes      int64   `json:"bytes"`
	ServerCPU  float64 `json:"server_cpu_seconds"`            // user + system, all threads and children
	BackendCPU float64 `json:"backend_cpu_seconds,omitempty"` // of the NFS server that the server has the image from
	MachineCPU float64 `json:"machine_cpu_seconds"`           // everything that ran on the machine meanwhile
	Steal      float64 `json:"steal_fraction"`                // of the machine's CPU time, taken by its host
	Tries      int     `json:"tries,omitempty"`               // how often it was taken: again when its host took too much
	RSSBytes   int64   `json:"rss_bytes"`                     // of the server at the end
	P50us      float64 `json:"p50_us"`                        // completion latency; 0 where the client does not tell
	P99us      float64 `json:"p99_us"`
}

// Rate returns MiB/s or requests per second, after the workload's unit; 0 when the sample is empty.
func (s Sample) Rate(u Unit) float64 {
	if s.Seconds <= 0 {
		return 0
	}
	if u == PerGiB {
		return float64(s.Bytes) / (1 << 20) / s.Seconds
	}
	return float64(s.Ops) / s.Seconds
}

// Cost returns the server's CPU: seconds per GiB or µs per request.
func (s Sample) Cost(u Unit) float64 { return cost(s, s.ServerCPU, u) }

// BackendCost returns the CPU of the NFS server behind the server, likewise.
func (s Sample) BackendCost(u Unit) float64 { return cost(s, s.BackendCPU, u) }

// MachineCost returns the whole machine's CPU (server, client, kernel): seconds per GiB or µs per request.
func (s Sample) MachineCost(u Unit) float64 { return cost(s, s.MachineCPU, u) }

func cost(s Sample, cpu float64, u Unit) float64 {
	switch {
	case u == PerGiB && s.Bytes > 0:
		return cpu / (float64(s.Bytes) / (1 << 30))
	case u == PerOp && s.Ops > 0:
		return cpu * 1e6 / float64(s.Ops)
	}
	return 0
}

// Failures lists the samples that have no result, as "server workload (repetition n): why".
func (r *Report) Failures() []string {
	var out []string
	for _, s := range r.Samples {
		if s.Error != "" {
			out = append(out, fmt.Sprintf("%s %s (repetition %d): %s", s.Server, s.Workload, s.Repetition, s.Error))
		}
	}
	return out
}

// server returns the server of that name, or nil.
func (r *Report) server(name string) *Server {
	for i := range r.Servers {
		if r.Servers[i].Name == name {
			return &r.Servers[i]
		}
	}
	return nil
}

// ofKind returns the servers of the given kinds in their order, without the variations.
func (r *Report) ofKind(kinds ...Kind) []Server {
	var out []Server
	for _, s := range r.Servers {
		for _, k := range kinds {
			if s.Kind == k && s.Against == "" {
				out = append(out, s)
			}
		}
	}
	return out
}

// samples returns the good samples of one server under one workload, by repetition.
func (r *Report) samples(server, workload string) map[int]Sample {
	out := map[int]Sample{}
	for _, s := range r.Samples {
		if s.Server == server && s.Workload == workload && s.Error == "" {
			out[s.Repetition] = s
		}
	}
	return out
}

package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Markdown writes the whole report as RESULTS.md.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	r.writeHead(&b)
	r.writeTargets(&b)
	for _, g := range r.groups() {
		r.writeGroup(&b, g)
	}
	r.writeVariations(&b)
	r.writeCopies(&b)
	r.writeMemory(&b)
	r.writeFailures(&b)
	r.writeCommands(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// group is the servers of like kind under the workloads of like client.
type group struct {
	title     string
	servers   []Server
	workloads []Workload
}

// groups splits the run into tables that fit on a page and compare only what is comparable.
func (r *Report) groups() []group {
	pick := func(f func(Workload) bool) []Workload {
		var out []Workload
		for _, w := range r.Workloads {
			if f(w) {
				out = append(out, w)
			}
		}
		return out
	}
	one := pick(func(w Workload) bool { return !w.Copy && w.Connections == 1 })
	many := pick(func(w Workload) bool { return !w.Copy && w.Connections > 1 })
	copies := pick(func(w Workload) bool { return w.Copy })
	file, memory := r.ofKind(File, Local), r.ofKind(Mem, Null)
	all := []group{
		{"Page-cached file, one connection", file, one},
		{"Page-cached file, several connections", file, many},
		{"Page-cached file, nbdcopy", file, copies},
		{"FUSE files, opened with O_DIRECT", r.ofKind(Fuse, Direct), one},
		{"Image on an NFS server, one connection", r.ofKind(NFS), one},
		{"Image on an NFS server, several connections", r.ofKind(NFS), many},
		{"Memory, and no data at all (the client's limit)", memory, slices.Concat(one, many, copies)},
	}
	var out []group
	for _, g := range all {
		g.workloads = slices.DeleteFunc(slices.Clone(g.workloads), func(w Workload) bool { return !r.tried(g.servers, w) })
		g.servers = slices.DeleteFunc(slices.Clone(g.servers), func(s Server) bool { return !r.took(s, g.workloads) })
		if len(g.workloads) > 0 {
			out = append(out, g)
		}
	}
	return out
}

// tried tells whether any of the servers was put under the workload.
func (r *Report) tried(servers []Server, w Workload) bool {
	return slices.ContainsFunc(servers, func(s Server) bool { return r.took(s, []Workload{w}) })
}

// took tells whether the server was put under any of the workloads.
func (r *Report) took(server Server, ws []Workload) bool {
	return slices.ContainsFunc(r.Samples, func(s Sample) bool {
		return s.Server == server.Name && slices.ContainsFunc(ws, func(w Workload) bool { return w.Name == s.Workload })
	})
}

func (r *Report) writeHead(b *strings.Builder) {
	fmt.Fprintf(b, "# Benchmark results\n\nWritten by `make bench`; see [README.md](README.md) for what the columns mean.\n\n")
	t := table{head: []string{"what", "value"}, left: 2}
	m, s := r.Machine, r.Settings
	t.row("date", r.Date)
	t.row("processor", fmt.Sprintf("%s, %d cores", m.CPU, m.Cores))
	t.row("memory", fmt.Sprintf("%d MiB", m.MemoryMiB))
	t.row("kernel", m.Kernel)
	t.row("system", m.System)
	t.row("file system", m.FileSystem)
	t.row("image", fmt.Sprintf("%d MiB", s.SizeBytes>>20))
	t.row("samples", fmt.Sprintf("%d repetitions of %g s, interleaved, order from seed %d", s.Repetitions, s.Seconds, s.Seed))
	t.row("steal", r.stealText())
	for _, p := range r.Programs {
		t.row(p.Name, p.Version)
	}
	b.WriteString(t.String())
	b.WriteString("\n")
}

// stealText tells how much CPU time the machine's own host took away: a run with more than a few percent is worth nothing.
func (r *Report) stealText() string {
	var xs []float64
	repeated := 0
	for _, s := range r.Samples {
		xs = append(xs, s.Steal*100)
		if s.Tries > 1 {
			repeated++
		}
	}
	st := Summarise(xs)
	text := fmt.Sprintf("median %.1f %%, worst %.1f %%", st.Median, st.Max)
	if repeated > 0 {
		text += fmt.Sprintf("; %d of %d samples were taken again because of it", repeated, len(xs))
	}
	return text
}

func (r *Report) writeTargets(b *strings.Builder) {
	if !slices.ContainsFunc(Targets, func(t Target) bool { return r.server(t.About()) != nil }) {
		return
	}
	fmt.Fprintf(b, "## Targets\n\n%s\n", r.TargetsTable())
}

// TargetsTable returns the verdicts of Check as a Markdown table.
func (r *Report) TargetsTable() string {
	t := table{head: []string{"workload", "target", "verdict", "measured", "spread"}, left: 3}
	for _, v := range r.Check() {
		t.row(v.Workload, v.Goal(), v.Verdict(), v.Value(), spreadText(v.Measured))
	}
	return t.String()
}

func (r *Report) writeGroup(b *strings.Builder, g group) {
	fmt.Fprintf(b, "## %s\n\n", g.title)
	section := func(title string, t *table) {
		if !t.empty() {
			fmt.Fprintf(b, "%s\n\n%s\n", title, t)
		}
	}
	section("Rate: MiB/s or thousand requests per second; median ± half of the spread.", r.grid(g, r.rateCell))
	for _, subject := range g.servers {
		if isSubject(subject.Name) {
			title := fmt.Sprintf("Rate of %s divided by the peer's, median of the pairs of each repetition [smallest, largest].", subject.Name)
			section(title, r.ratioGrid(g, subject.Name, Rate))
			title = fmt.Sprintf("Server CPU of %s for the same work divided by the peer's, likewise (below 1 is less).", subject.Name)
			section(title, r.ratioGrid(g, subject.Name, Cost))
		}
	}
	behind := ""
	if g.servers[0].Kind == NFS {
		behind = " / NFS server's CPU"
	}
	section("Server CPU"+behind+" / whole machine: seconds per GiB (MiB/s columns) or µs per request.", r.grid(g, r.costCell))
	section("Completion latency in µs, p50 / p99 (of the reads, where reads and writes are mixed).", r.grid(g, r.latencyCell))
}

// isSubject tells our own configurations, sluice and sluice-..., from the peers.
func isSubject(name string) bool { return name == Subject || strings.HasPrefix(name, Subject+"-") }

func (r *Report) grid(g group, cell func(string, Workload) string) *table {
	t := &table{head: header(g.workloads), left: 1}
	for _, s := range g.servers {
		row := []string{s.Name}
		for _, w := range g.workloads {
			row = append(row, cell(s.Name, w))
		}
		t.row(row...)
	}
	return t
}

func header(ws []Workload) []string {
	head := []string{"server"}
	for _, w := range ws {
		head = append(head, w.Name)
	}
	return head
}

func (r *Report) ratioGrid(g group, subject string, f Figure) *table {
	t := &table{head: header(g.workloads), left: 1}
	t.head[0] = "peer"
	for _, s := range g.servers {
		if s.Name == subject || s.Kind == Local { // the file system is no peer
			continue
		}
		row := []string{s.Name}
		for _, w := range g.workloads {
			row = append(row, ratioText(r.Ratio(subject, []string{s.Name}, w, f, math.Max)))
		}
		t.row(row...)
	}
	return t
}

func (r *Report) rateCell(server string, w Workload) string {
	st := r.Stat(server, w, Rate)
	if st.N == 0 {
		if r.took(Server{Name: server}, []Workload{w}) {
			return "failed"
		}
		return ""
	}
	return fmt.Sprintf("%s ±%.0f%%", rateText(st.Median, w.Unit), st.HalfSpread()*100)
}

func (r *Report) costCell(server string, w Workload) string {
	st, all := r.Stat(server, w, Cost), r.Stat(server, w, MachineCost)
	if st.N == 0 {
		return ""
	}
	text := costText(st.Median, w.Unit) + " / "
	if behind := r.Stat(server, w, BackendCost); behind.Max > 0 {
		text += costText(behind.Median, w.Unit) + " / "
	}
	return text + costText(all.Median, w.Unit)
}

func (r *Report) latencyCell(server string, w Workload) string {
	p50, p99 := r.Stat(server, w, P50), r.Stat(server, w, P99)
	if p50.Max == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f / %.0f", p50.Median, p99.Median)
}

func (r *Report) writeMemory(b *strings.Builder) {
	fmt.Fprintf(b, "## Memory\n\nLargest resident set of the server at the end of a sample, MiB.\n\n")
	t := table{head: []string{"server", "MiB"}, left: 1}
	for _, s := range r.ofKind(File, Fuse, NFS, Mem, Null) {
		var largest float64
		for _, w := range r.Workloads {
			largest = max(largest, r.Stat(s.Name, w, RSS).Max)
		}
		t.row(s.Name, fmt.Sprintf("%.0f", largest))
	}
	b.WriteString(t.String())
	b.WriteString("\n")
}

func (r *Report) writeFailures(b *strings.Builder) {
	list := r.Failures()
	if len(list) == 0 {
		return
	}
	b.WriteString("## Failures\n\n")
	for _, f := range list {
		fmt.Fprintf(b, "- %s\n", f)
	}
	b.WriteString("\n")
}

func (r *Report) writeCommands(b *strings.Builder) {
	b.WriteString("## Commands\n\nServers, with `{socket}`, `{mount}`, `{file}` and `{size}` for what changes:\n\n```\n")
	for _, s := range r.Servers {
		fmt.Fprintf(b, "%-14s %s\n", s.Name, s.Command)
	}
	b.WriteString("```\n")
	for _, s := range r.Servers {
		if s.Note != "" {
			fmt.Fprintf(b, "\n%s: %s\n", s.Name, s.Note)
		}
	}
	b.WriteString("\nClients:\n\n```\n")
	for _, w := range r.Workloads {
		fmt.Fprintf(b, "# %s: %s\n%s\n", w.Name, w.Title, w.Command)
	}
	b.WriteString("```\n")
}

// rateText prints MiB/s as a whole number and requests per second in thousands.
func rateText(v float64, u Unit) string {
	if u == PerGiB {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f k", v/1000)
}

func costText(v float64, u Unit) string {
	if u == PerGiB {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func ratioText(st Stat) string {
	if st.N == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f [%.2f, %.2f]", st.Median, st.Min, st.Max)
}

func spreadText(st Stat) string {
	if st.N == 0 {
		return ""
	}
	return fmt.Sprintf("±%.0f%%", st.HalfSpread()*100)
}

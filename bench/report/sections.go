package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// writeVariations shows each variation of a server beside the server itself.
func (r *Report) writeVariations(b *strings.Builder) {
	for _, v := range r.Servers {
		ws := r.taken(v)
		if v.Against == "" || len(ws) == 0 {
			continue
		}
		fmt.Fprintf(b, "## %s beside %s\n\n", v.Name, v.Against)
		pair := group{servers: []Server{v, {Name: v.Against}}, workloads: ws}
		fmt.Fprintf(b, "Rate: MiB/s or thousand requests per second; median ± half of the spread.\n\n%s\n", r.grid(pair, r.rateCell))
		fmt.Fprintf(b, "%s divided by %s, median of the pairs of each repetition [smallest, largest].\n\n", v.Name, v.Against)
		t := &table{head: header(ws), left: 1}
		t.head[0] = "figure"
		for _, f := range []struct {
			name   string
			figure Figure
		}{{"rate", Rate}, {"server CPU", Cost}, {"latency, p50", P50}} {
			row := []string{f.name}
			for _, w := range ws {
				row = append(row, ratioText(r.Ratio(v.Name, []string{v.Against}, w, f.figure, math.Max)))
			}
			t.row(row...)
		}
		fmt.Fprintf(b, "%s\n", t)
	}
}

// writeCopies shows the programs that copy, ours beside the other.
func (r *Report) writeCopies(b *strings.Builder) {
	g := group{servers: r.ofKind(Copier)}
	for _, w := range r.Workloads {
		if r.tried(g.servers, w) {
			g.workloads = append(g.workloads, w)
		}
	}
	if len(g.workloads) == 0 {
		return
	}
	section := func(title string, t *table) {
		t.head[0] = "program"
		if !t.empty() {
			fmt.Fprintf(b, "%s\n\n%s\n", title, t)
		}
	}
	b.WriteString("## Programs that copy\n\n")
	section("MiB/s from the program's start to its end, which is when the copy is durable; median ± half of the spread.",
		r.grid(g, r.rateCell))
	for _, s := range g.servers {
		if isSubject(s.Name) {
			section(fmt.Sprintf("Rate of %s divided by the other's, median of the pairs of each repetition [smallest, largest].", s.Name),
				r.ratioGrid(g, s.Name, Rate))
		}
	}
	section("CPU of the program / whole machine, seconds per GiB.", r.grid(g, r.costCell))
}

// taken returns the workloads that the server was put under.
func (r *Report) taken(s Server) []Workload {
	return slices.DeleteFunc(slices.Clone(r.Workloads), func(w Workload) bool { return !r.took(s, []Workload{w}) })
}

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
)

// The plot is drawn by a template of our own: a plotting library would bring some thirty modules with it for bars and
// labels, and its output changes with its version, while this one stays the same byte for byte and can be diffed.
// Each workload is one row of two panels: rate at the left, server CPU at the right; a thin line on each bar spans
// the smallest and the largest repetition.

// Measures of the plot in px.
const (
	plotWidth   = 1160
	plotColumns = 2 // workloads side by side
	panelGap    = 20
	labelWidth  = 92
	valueWidth  = 62
	barHeight   = 11
	barStep     = 15
	titleHeight = 26
	plotTop     = 64
	blockGap    = 14
)

type plot struct {
	Width, Height int
	Subtitle      string
	Texts         []plotText
	Bars          []plotBar
}

type plotText struct {
	X, Y  float64
	Class string
	Text  string
}

type plotBar struct {
	X, Y, W, H       float64
	Class            string
	Low, High, LineY float64 // ends of the line of the spread
}

var plotTemplate = template.Must(template.New("plot").Funcs(template.FuncMap{
	"num": func(v float64) string { return fmt.Sprintf("%.1f", v) },
	"esc": escapeXML,
}).Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" ` +
	`viewBox="0 0 {{.Width}} {{.Height}}" font-family="sans-serif" font-size="11">
<style>
.page{fill:#ffffff} .name{fill:#444444;text-anchor:end} .value{fill:#444444} .title{fill:#111111;font-weight:bold}
.head{fill:#111111;font-size:18px;font-weight:bold} .sub{fill:#666666}
.ours{fill:#1d6fb8} .peer{fill:#a9b4c0} .limit{fill:#dfe4ea} .spread{stroke:#222222;stroke-width:1}
</style>
<rect class="page" width="{{.Width}}" height="{{.Height}}"/>
<text class="head" x="20" y="28">NBD servers side by side</text>
<text class="sub" x="20" y="46">{{esc .Subtitle}}</text>
{{- range .Bars}}
<rect class="{{.Class}}" x="{{num .X}}" y="{{num .Y}}" width="{{num .W}}" height="{{num .H}}"/>
<line class="spread" x1="{{num .Low}}" y1="{{num .LineY}}" x2="{{num .High}}" y2="{{num .LineY}}"/>
{{- end}}
{{- range .Texts}}
<text class="{{.Class}}" x="{{num .X}}" y="{{num .Y}}">{{esc .Text}}</text>
{{- end}}
</svg>
`))

func escapeXML(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}

// SVG draws rates and server CPU of all workloads.
func (r *Report) SVG(w io.Writer) error {
	p := &plot{Width: plotWidth, Subtitle: r.plotSubtitle()}
	columnWidth := float64(plotWidth-panelGap) / plotColumns
	y := float64(plotTop)
	workloads := slices.DeleteFunc(slices.Clone(r.Workloads), func(w Workload) bool { return len(r.plotted(w)) == 0 })
	for i := 0; i < len(workloads); i += plotColumns {
		var tallest float64
		for c := 0; c < plotColumns && i+c < len(workloads); c++ {
			x := panelGap + float64(c)*columnWidth
			tallest = max(tallest, r.plotWorkload(p, workloads[i+c], x, y, columnWidth-panelGap))
		}
		y += tallest + blockGap
	}
	p.Height = int(y)
	return plotTemplate.Execute(w, p)
}

func (r *Report) plotSubtitle() string {
	s := r.Settings
	return fmt.Sprintf("%s. %s, %d cores, %s. Medians of %d interleaved repetitions of %g s; the thin line spans smallest to largest.",
		r.Date, r.Machine.CPU, r.Machine.Cores, r.Machine.FileSystem, s.Repetitions, s.Seconds)
}

// plotted returns the servers that have bars for the workload: all that have a result, without the local file, which
// is so much faster that it would squash the rest, and the programs that copy.
func (r *Report) plotted(w Workload) []Server {
	return slices.DeleteFunc(r.ofKind(File, Fuse, Mem, Null), func(s Server) bool { return r.Stat(s.Name, w, Rate).N == 0 })
}

// plotWorkload draws one workload's two panels at (x, y) and returns their height.
func (r *Report) plotWorkload(p *plot, w Workload, x, y, width float64) float64 {
	servers := r.plotted(w)
	rate, cpu := "thousand requests/s", "server CPU, µs per request"
	if w.Unit == PerGiB {
		rate, cpu = "MiB/s", "server CPU, s per GiB"
	}
	panel := (width - panelGap) / 2
	p.text(x, y+12, "title", fmt.Sprintf("%s: %s, %s", w.Name, w.Title, rate))
	p.text(x+panel+panelGap+labelWidth, y+titleHeight-1, "sub", cpu)
	top := y + titleHeight + 4
	r.plotPanel(p, w, servers, panelSpec{x, top, panel, Rate, plainRate})
	r.plotPanel(p, w, servers, panelSpec{x + panel + panelGap, top, panel, Cost, costText})
	return titleHeight + 4 + float64(len(servers))*barStep
}

// panelSpec is where a panel lies, which figure it shows and how its values are written.
type panelSpec struct {
	x, y, width float64
	figure      Figure
	text        func(float64, Unit) string
}

// plainRate leaves out the unit, which stands in the panel's title.
func plainRate(v float64, u Unit) string { return strings.TrimSuffix(rateText(v, u), " k") }

func (r *Report) plotPanel(p *plot, w Workload, servers []Server, at panelSpec) {
	var largest float64
	for _, s := range servers {
		largest = max(largest, r.Stat(s.Name, w, at.figure).Max)
	}
	if largest == 0 {
		largest = 1
	}
	room := at.width - labelWidth - valueWidth
	start := at.x + labelWidth
	for i, s := range servers {
		st := r.Stat(s.Name, w, at.figure)
		y := at.y + float64(i)*barStep
		scale := func(v float64) float64 { return v / largest * room }
		p.Bars = append(p.Bars, plotBar{
			X: start, Y: y, W: scale(st.Median), H: barHeight, Class: barClass(s),
			Low: start + scale(st.Min), High: start + scale(st.Max), LineY: y + barHeight/2.0,
		})
		p.text(start-5, y+barHeight-2, "name", s.Name)
		p.text(start+scale(st.Max)+5, y+barHeight-2, "value", at.text(st.Median, w.Unit))
	}
}

func barClass(s Server) string {
	switch {
	case isSubject(s.Name):
		return "ours"
	case s.Kind == Null:
		return "limit"
	}
	return "peer"
}

func (p *plot) text(x, y float64, class, s string) {
	p.Texts = append(p.Texts, plotText{X: x, Y: y, Class: class, Text: s})
}

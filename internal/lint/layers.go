package lint

import (
	"strconv"
	"strings"
)

// arrow says what a package may import of ours. "x/..." is x and everything
// below it; "..." is everything.
type arrow struct {
	from string
	to   []string
}

// arrows are those of docs/design/0001-architecture.md. The first that fits a
// package counts; one that fits none is a breach, so that whoever adds a
// package has to decide where it stands.
var arrows = []arrow{
	{"block", nil},
	{"block/...", []string{"block/..."}},
	{"nbd/...", []string{"block", "block/buffer", "block/gate", "nbd/..."}},
	{"fusefs/...", []string{"block", "block/buffer", "block/gate", "fusefs/..."}},
	{"backends/nbd", []string{"block/...", "backends", "nbd/..."}},
	{"backends/nfs/xdr", nil},
	{"backends/nfs/unstable", []string{"block", "block/buffer"}},
	{"backends/nfs/rpc", []string{"block", "backends/nfs/xdr"}},
	{"backends/nfs/nfsstat", []string{"block"}},
	{"backends/nfs/remote", []string{"block"}},
	{"backends/nfs/nfstest", []string{"backends/nfs/xdr"}},
	{"backends/nfs/...", []string{"block/...", "backends/location", "backends/nfs/..."}},
	{"backends/...", []string{"block/...", "backends/..."}},
	{"formats/...", []string{"block/...", "formats/..."}},
	{"filters/filtertest", []string{"block/...", "backends/..."}},
	{"filters/...", []string{"block/...", "filters/..."}},
	{"metrics/...", []string{"block/...", "nbd", "metrics/..."}},
	{"imagecopy/...", []string{"block/...", "imagecopy/..."}},
	{"spm/...", []string{"block/...", "backends/...", "formats/...", "spm/..."}},
	{"gateway/spec", []string{"block/...", "filters/..."}},
	{"gateway/...", []string{"block/...", "backends/...", "formats/...", "filters/...", "nbd/...", "fusefs/...", "metrics/...", "imagecopy/...", "spm/...", "gateway/..."}},
	{"vmrun/...", []string{"block/...", "gateway/...", "spm/...", "metrics/...", "vmrun/..."}},
	{"cmd/sluice/...", []string{"block/...", "backends/...", "formats/...", "filters/...", "nbd/...", "fusefs/...", "metrics/...", "imagecopy/...", "spm/...", "gateway/...", "vmrun/...", "cmd/sluice/..."}},
	{"bench/...", []string{"..."}},
	{"internal", nil},
	{"internal/lint", nil},
	{"internal/lab", nil},
	{"internal/demo", []string{"internal/lab"}},
}

// notForTests are packages that tests may not import either; otherwise they
// may import whatever they need.
var notForTests = []string{"cmd/...", "bench/...", "internal/demo", "internal/lint"}

// forTests are packages that tests import, and each other, but nothing that is
// built into a program.
var forTests = []string{"block/blocktest", "backends/nfs/nfstest", "filters/filtertest", "fusefs/fsxtest", "gateway/httpapi/apitest"}

// layers checks the imports of ours.
func layers(t *Tree) []Finding {
	var found []Finding
	lost := map[string]bool{}
	for _, f := range t.Files {
		from := f.Dir()
		if from == "." {
			from = ""
		}
		to, drawn := allowed(from)
		if lost[from] {
			continue
		}
		if !drawn {
			lost[from] = true
			found = append(found, f.finding(f.AST.Name.Pos(), "package %s has no place in the layers: "+
				"add it to docs/design/0001-architecture.md and to arrows in internal/lint/layers.go", from))
			continue
		}
		for _, spec := range f.AST.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			ours, ok := strings.CutPrefix(path, t.Module+"/")
			if !ok {
				continue
			}
			switch {
			case f.Test && (!fits(ours, notForTests) || fits(ours, to) || ours == from):
			case !f.Test && fits(ours, forTests) && !fits(from, forTests):
				found = append(found, f.finding(spec.Pos(), "%s may not import %s: that is for tests", from, ours))
			case !f.Test && fits(ours, to):
			default:
				found = append(found, f.finding(spec.Pos(), "%s may not import %s: let a package above both join them "+
					"(docs/design/0001-architecture.md)", from, ours))
			}
		}
	}
	return found
}

// allowed looks a package up in arrows.
func allowed(from string) (to []string, drawn bool) {
	for _, a := range arrows {
		if fits(from, []string{a.from}) {
			return a.to, true
		}
	}
	return nil, false
}

// fits reports whether a package is covered by one of the patterns.
func fits(pkg string, patterns []string) bool {
	for _, p := range patterns {
		below, wild := strings.CutSuffix(p, "/...")
		if p == "..." || pkg == p || wild && (pkg == below || strings.HasPrefix(pkg, below+"/")) {
			return true
		}
	}
	return false
}

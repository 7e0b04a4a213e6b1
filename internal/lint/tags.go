package lint

import (
	"go/build/constraint"
	"runtime"
	"slices"
	"strings"
)

// The build tags under which the tools run, beside those of the machine: all of
// them under toolTags, vet also under vetTags, in the packages that have files
// for those. What needs the tag race is seen by the vet of go test -race.
var (
	toolTags = []string{"interop"}
	vetTags  = []string{"interop", "invariants"}
	raceTags = []string{"interop", "race"}
)

// tags checks that every file is seen by the tools.
func tags(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if !seen(f, toolTags) && !seen(f, vetTags) && !seen(f, raceTags) {
			found = append(found, Finding{f.Path, buildLine(f), "vet and the others never see this file: " +
				"add its tag to those in internal/lint/tags.go"})
		}
	}
	return found
}

// seen reports whether a file is built with a set of tags.
func seen(f *File, set []string) bool {
	line := buildLine(f)
	if line == 0 {
		return true
	}
	expr, err := constraint.Parse(strings.Split(string(f.Data), "\n")[line-1])
	return err == nil && expr.Eval(func(tag string) bool {
		return tag == runtime.GOOS || tag == runtime.GOARCH || tag == "unix" || strings.HasPrefix(tag, "go1.") || slices.Contains(set, tag)
	})
}

// buildLine returns the number of the line with the file's build constraint, 0
// when it has none.
func buildLine(f *File) int {
	for _, group := range f.AST.Comments {
		for _, c := range group.List {
			if c.Pos() < f.AST.Package && constraint.IsGoBuild(c.Text) {
				return f.Line(c.Pos())
			}
		}
	}
	return 0
}

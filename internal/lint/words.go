package lint

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
)

// word is something that must not stand in any file. The patterns are written
// such that they do not match themselves.
type word struct {
	pattern *regexp.Regexp
	why     string
}

var forbidden = []word{
	{regexp.MustCompile(`(^|[^\w.*/\])}-])/(ro[o]t|wor[k]|home/[a-z]\w*)/`), "a path of one machine: take it from the environment or a flag"},
	{regexp.MustCompile(`\b(prox[y]\.golang\.org|su[m]\.golang\.org|go[p]roxy\.\w+|de[b]\.debian\.org|p[y]pi\.org|registr[y]\.(npmjs|yarnpkg|terraform|k8s)|gh[c]r\.io|qua[y]\.io|docke[r]\.io)\b`),
		"the host of a registry: the environment decides where packages come from"},
	{regexp.MustCompile(`\b(TO[D]O|FIX[M]E)\b`), "an unfinished piece: finish it, or write an issue"},
	{regexp.MustCompile(`[\x{1F000}-\x{1FAFF}]`), "a pictogram: say it in words"},
}

// dumps are names that say nothing of what a package is.
var dumps = []string{"util", "utils", "common", "types", "helper", "helpers", "misc", "shared"}

// words looks for what must not stand in any file.
func words(t *Tree) []Finding {
	var found []Finding
	for _, text := range t.Texts {
		line := 0
		for l := range bytes.Lines(text.Data) {
			line++
			for _, w := range forbidden {
				if m := w.pattern.Find(l); m != nil {
					found = append(found, Finding{text.Path, line, fmt.Sprintf("%q is %s", bytes.TrimSpace(m), w.why)})
				}
			}
		}
	}
	return found
}

// names looks for packages whose names say nothing.
func names(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if slices.Contains(dumps, f.AST.Name.Name) {
			found = append(found, f.finding(f.AST.Name.Pos(), "package %s: name it after what it provides", f.AST.Name.Name))
		}
	}
	return found
}

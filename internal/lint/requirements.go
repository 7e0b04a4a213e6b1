package lint

import (
	"bytes"
	"regexp"
	"strings"
)

// inventory is where every module and tool that is used directly is explained.
const inventory = "docs/design/dependencies.md"

// needed matches a module that a go.mod requires, or a tool, with what stands
// behind it.
var needed = regexp.MustCompile(`^(?:require |tool |\t)([\w.-]+\.[\w.-]+/\S+)(.*)`)

// requirements checks that the inventory names what go.mod requires directly,
// and the tools of tools/go.mod.
func requirements(t *Tree) []Finding {
	var list []byte
	for _, text := range t.Texts {
		if text.Path == inventory {
			list = text.Data
		}
	}
	var found []Finding
	for _, text := range t.Texts {
		if text.Path != "go.mod" && text.Path != "tools/go.mod" {
			continue
		}
		n := 0
		for line := range strings.Lines(string(text.Data)) {
			n++
			m := needed.FindStringSubmatch(line)
			if m == nil || strings.Contains(m[2], "// indirect") || bytes.Contains(list, []byte("`"+m[1]+"`")) {
				continue
			}
			found = append(found, Finding{text.Path, n, m[1] + " is not in " + inventory + ": add a line that says why it is needed"})
		}
	}
	return found
}

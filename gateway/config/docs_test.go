package config

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// paths lists every key that is no table, in the form that the documents have:
// export.throttle.burst.
func paths(in *table, path string) []string {
	var all []string
	for _, n := range in.names {
		k := in.keys[n]
		if k.table != nil {
			all = append(all, paths(k.table, join(path, n))...)
			continue
		}
		all = append(all, join(path, n))
	}
	return all
}

func read1(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// commented matches a key or a table that the example leaves out.
var commented = regexp.MustCompile(`(?m)^#([a-z_]+ = |\[)`)

// TestExample reads the file as it is installed, which says nothing, and with
// every key in it.
func TestExample(t *testing.T) {
	text := read1(t, "../../dist/sluice.toml")
	if _, err := Parse("sluice.toml", []byte(text)); err != nil {
		t.Error(err)
	}
	all := commented.ReplaceAllString(text, "$1")
	c, err := Parse("sluice.toml", []byte(strings.Replace(all, `faults = false`, `faults = true`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Exports) != 1 || c.Exports[0].Throttle.ReadBytes != 200<<20 {
		t.Errorf("%+v", c.Exports)
	}
	doc, m := read([]byte(all))
	if m != nil {
		t.Fatalf("line %d: %s", m.line, m.text)
	}
	for _, path := range paths(root, "") {
		if doc.lines[strings.Replace(path, "export.", "export[0].", 1)] == 0 {
			t.Errorf("the example does not show %s", path)
		}
	}
}

// TestExampleShowsDefaults compares the values of keys that have a default.
func TestExampleShowsDefaults(t *testing.T) {
	text := read1(t, "../../dist/sluice.toml")
	top, _, _ := strings.Cut(text, "#[tls]")
	values := regexp.MustCompile(`(?m)^#((metrics|log_level|allow_faults|max_connections|busy_poll|shutdown_timeout|slow_request) = .*)$`)
	var lines []string
	for _, m := range values.FindAllStringSubmatch(top, -1) {
		lines = append(lines, m[1])
	}
	c, err := Parse("x", []byte(strings.Join(lines, "\n")))
	if err != nil || len(lines) != 7 {
		t.Fatalf("%q: %v", lines, err)
	}
	if diff := cmp.Diff(Default(), c); diff != "" {
		t.Error(diff)
	}
}

// TestDocs compares the table of docs/daemon.md with the keys that there are.
func TestDocs(t *testing.T) {
	_, section, _ := strings.Cut(read1(t, "../../docs/daemon.md"), "\n## Configuration\n")
	section, _, _ = strings.Cut(section, "\n## ")
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(section, -1) {
		if told[m[1]] {
			t.Errorf("%s is there twice", m[1])
		}
		told[m[1]] = true
	}
	for _, path := range paths(root, "") {
		if !told[path] {
			t.Errorf("docs/daemon.md does not tell of %s", path)
		}
		delete(told, path)
	}
	if len(told) > 0 {
		t.Errorf("docs/daemon.md tells of %v, which are not there", slices.Sorted(maps.Keys(told)))
	}
}

package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestTree keeps this module to the rules.
func TestTree(t *testing.T) {
	tree, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range Rules {
		t.Run(rule.Name, func(t *testing.T) {
			found, err := rule.Check(tree)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range sorted(found) {
				t.Error(f)
			}
		})
	}
}

// want marks a line of a bad tree of which the rule must complain, or the line
// above it.
var want = regexp.MustCompile(`want(-1)? "([^"]*)"`)

// TestRulesBite runs each rule on a bad tree of its own, testdata/RULE.txt, and
// compares what it finds with the lines marked there: want "TEXT".
func TestRulesBite(t *testing.T) {
	for _, rule := range Rules {
		t.Run(rule.Name, func(t *testing.T) {
			tree := unpack(t, filepath.Join("testdata", rule.Name+".txt"))
			found, err := rule.Check(tree)
			if err != nil {
				t.Fatal(err)
			}
			expected := marks(tree)
			if len(expected) == 0 {
				t.Fatal("the tree has no mark")
			}
			for _, f := range found {
				at := Finding{Path: f.Path, Line: f.Line}
				text, ok := expected[at]
				if !ok {
					t.Errorf("not expected: %s", f)
				} else if !strings.Contains(f.Text, text) {
					t.Errorf("%s; expected %q", f, text)
				}
				delete(expected, at)
			}
			for at, text := range expected {
				t.Errorf("%s:%d: the rule did not complain; expected %q", at.Path, at.Line, text)
			}
		})
	}
}

// unpack makes the tree that a file of test data describes: "-- PATH --" starts
// a file, "REPEAT N" stands for N empty lines. Bad source is kept in this form so
// that nothing but the rule under test comes across it.
func unpack(t *testing.T, path string) *Tree {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	name := ""
	// {/} is a slash: what the rule about paths looks for is not in our tree either.
	for line := range strings.Lines(strings.ReplaceAll(string(data), "{/}", "/")) {
		if rest, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(rest, " --\n")
			continue
		}
		if count, ok := strings.CutPrefix(line, "REPEAT "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(count))
			if err != nil {
				t.Fatal(err)
			}
			line = strings.Repeat("\n", n)
		}
		files[name] += line
	}
	return makeTree(t, files)
}

// makeTree writes files into a folder and loads it.
func makeTree(t *testing.T, files map[string]string) *Tree {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// marks finds the marks of a tree.
func marks(tree *Tree) map[Finding]string {
	all := map[Finding]string{}
	for _, text := range tree.Texts {
		n := 0
		for line := range strings.Lines(string(text.Data)) {
			n++
			if m := want.FindStringSubmatch(line); m != nil {
				all[Finding{Path: text.Path, Line: n - len(m[1])/2}] = m[2]
			}
		}
	}
	return all
}

// TestLongFilesAreFound makes files that are too long to be kept as test data.
func TestLongFilesAreFound(t *testing.T) {
	blank := func(n int) string { return strings.Repeat("\n", n) }
	for _, c := range []struct {
		name, text, want string
	}{
		{"a.go", "package a\n" + blank(599), ""},
		{"a.go", "package a\n" + blank(600), "a.go:1: the file has 601 lines, 600 are the limit"},
		{"a_test.go", "package a\n" + blank(899), ""},
		{"a_test.go", "package a\n" + blank(900), "a_test.go:1: the file has 901 lines, 900 are the limit"},
		{"a.go", "//lint:long a table\npackage a\n" + blank(600), ""},
		{"a.go", "//lint:long\npackage a\n" + blank(600), "a.go:1: the escape has no reason"},
	} {
		tree := makeTree(t, map[string]string{"go.mod": "module bad\n", c.name: c.text})
		got := ""
		if found := sizes(tree); len(found) > 0 {
			got = found[0].String()
		}
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s of %d bytes: got %q, want %q", c.name, len(c.text), got, c.want)
		}
	}
}

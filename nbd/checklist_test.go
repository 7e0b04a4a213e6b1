package nbd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// numbered lists every behaviour that CHECKLIST.md has to have.
const numbered = `
	N01 N02 N03 N04 N05 N06 N07 N08 N09 N10 N11 N12 N20 N21 N22 N23 N24 N25 N26 N27 N28 N29
	N40 N41 N42 N43 N44 N45 N46 N47 N60 N61 N62 N63 N64 N65 N66 N67 N68 N69 N70 N71 N72 N73 N74 N75 N76 N77
	N80 N81 N82 N83 N84 N90 N91 N92 N93 N94 N95 N100 N101 N102 N103 N110 N111 N120 N130 N140`

// checklistLine is a row of a table in CHECKLIST.md.
type checklistLine struct {
	number, level, text, covered string
}

func readChecklist(t *testing.T) []checklistLine {
	t.Helper()
	text, err := os.ReadFile("CHECKLIST.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []checklistLine
	for row := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
		if !strings.HasPrefix(row, "|") || strings.Contains(row, "---") || strings.Contains(row, "| Covered by") {
			continue
		}
		if len(cells) != 4 {
			t.Fatalf("%d cells in %q", len(cells), row)
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		lines = append(lines, checklistLine{cells[0], cells[1], cells[2], cells[3]})
	}
	return lines
}

// testFunctions finds the test functions of a folder, whatever their build tags.
func testFunctions(t *testing.T, prefix, folder string, into map[string]bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", folder, err)
	}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range function.FindAllSubmatch(text, -1) {
			into[prefix+string(found[1])] = true
		}
	}
}

func TestChecklist(t *testing.T) {
	exists := make(map[string]bool)
	testFunctions(t, "", ".", exists)
	testFunctions(t, "interop.", "interop", exists)
	testFunctions(t, "cmd/sluice.", "../cmd/sluice", exists)
	unnamed := make(map[string]bool)
	for _, group := range serverTests() {
		for _, st := range group {
			exists["TestServer/"+st.name] = true
			unnamed["TestServer/"+st.name] = true
		}
	}
	lines := make(map[string]checklistLine)
	for _, line := range readChecklist(t) {
		if _, twice := lines[line.number]; twice {
			t.Errorf("%s is there twice", line.number)
		}
		lines[line.number] = line
		if !strings.Contains("B R O X", line.level) || line.level == "" || line.text == "" {
			t.Errorf("%s: level %q, behaviour %q", line.number, line.level, line.text)
		}
		if reason, left := strings.CutPrefix(line.covered, "left out:"); left {
			if len(reason) < 20 {
				t.Errorf("%s is left out without a reason", line.number)
			}
			continue
		}
		for name := range strings.SplitSeq(line.covered, ",") {
			name = strings.TrimSpace(name)
			delete(unnamed, name)
			if !exists[name] {
				t.Errorf("%s: there is no test %q", line.number, name)
			}
		}
	}
	for _, number := range strings.Fields(numbered) {
		if _, ok := lines[number]; !ok {
			t.Errorf("%s is missing", number)
		}
	}
	for name := range unnamed {
		t.Errorf("%s is not named in the checklist", name)
	}
}

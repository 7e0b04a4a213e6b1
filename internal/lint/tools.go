package lint

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// vet runs go vet.
func vet(t *Tree) ([]Finding, error) {
	found, err := vetWith(t, toolTags, "./...")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, f := range t.Files {
		if dir := "./" + f.Dir(); !seen(f, toolTags) && seen(f, vetTags) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) == 0 {
		return found, nil
	}
	more, err := vetWith(t, vetTags, dirs...)
	for _, f := range more {
		if !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	return found, err
}

// vetWith runs go vet on packages under a set of tags.
func vetWith(t *Tree, set []string, packages ...string) ([]Finding, error) {
	args := append([]string{"go", "vet", "-tags", strings.Join(set, ",")}, packages...)
	return complaints(t.Root, "mend it", args...)
}

// staticcheck runs staticcheck.
func staticcheck(t *Tree) ([]Finding, error) {
	bin, err := tool("staticcheck")
	if err != nil {
		return nil, err
	}
	return complaints(t.Root, "https://staticcheck.dev/docs/checks explains the code", bin, "-tags", strings.Join(toolTags, ","), "./...")
}

// errcheck looks for errors that nobody looks at, in tests too. Printing is
// left out: errcheck.txt says what.
func errcheck(t *Tree) ([]Finding, error) {
	bin, err := tool("errcheck")
	if err != nil {
		return nil, err
	}
	exclude, err := filepath.Abs("errcheck.txt")
	if err != nil {
		return nil, err
	}
	return complaints(t.Root, "the error is dropped: handle it, or write _ = in front", bin,
		"-tags", strings.Join(toolTags, ","), "-exclude", exclude, "./...")
}

// tool returns the path of a program of tools/go.mod, which go builds when it
// has not done so before. The working folder is this package's.
func tool(name string) (string, error) {
	cmd := exec.Command("go", "tool", "-C", "../..", "-modfile=tools/go.mod", "-n", name)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	path, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(path)), nil
}

var complaintLine = regexp.MustCompile(`^(?:vet: )?(?:\./)?([^\s:]+\.go):(\d+)(?::\d+)?:\s*(.*)$`)

// complaints runs a tool in a folder and reads the lines FILE:LINE:COLUMN: TEXT
// that it prints; advice is appended to each. A tool that fails without such a
// line, or with another code than 1, is an error.
func complaints(dir, advice string, args ...string) ([]Finding, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	if exit != nil && exit.ExitCode() > 1 {
		return nil, fmt.Errorf("%s: %w\n%s", filepath.Base(args[0]), err, text)
	}
	var found []Finding
	for line := range strings.Lines(string(text)) {
		if m := complaintLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			n, convErr := strconv.Atoi(m[2])
			if convErr != nil {
				return nil, convErr
			}
			found = append(found, Finding{m[1], n, m[3] + ": " + advice})
		}
	}
	if err != nil && len(found) == 0 {
		return nil, fmt.Errorf("%s: %w\n%s", filepath.Base(args[0]), err, text)
	}
	return found, nil
}

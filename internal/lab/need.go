package lab

import (
	_ "embed"
	"os/exec"
	"strings"
)

// packages is the list of Debian packages that "make deps" installs: a package
// and the programs that it brings on each line.
//
//go:embed packages.txt
var packages string

// Need fails the test unless all the programs are there, and says which Debian
// packages bring the missing ones.
func Need(t TB, programs ...string) {
	t.Helper()
	var missing, install []string
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
			install = append(install, packageOf(program))
		}
	}
	if len(missing) > 0 {
		t.Fatalf("missing: %s; install with: apt-get install --no-install-recommends %s (or: make deps)",
			strings.Join(missing, " "), strings.Join(install, " "))
	}
}

// packageOf names the package that brings a program, or the program itself when
// the list does not know it.
func packageOf(program string) string {
	for line := range strings.Lines(packages) {
		line, _, _ = strings.Cut(line, "#")
		for i, word := range strings.Fields(line) {
			if i > 0 && word == program {
				return strings.Fields(line)[0]
			}
		}
	}
	return program
}

// Package lint keeps the house in order: who may import whom, how long files
// and functions are, what must be documented, what must not appear, and what
// vet, staticcheck and errcheck say. It runs as a test ("make lint", "go test
// ./internal/lint"), one subtest for each rule of [Rules]; each rule has a small
// bad tree under testdata of which it must complain.
//
// Sizes have one escape, a line above what is too long:
//
//	//lint:long a reason, which must be there
//
// The rules look at every Go file, whatever its build tags. Nothing here runs
// concurrently.
package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Tree is a module's source.
type Tree struct {
	Root   string // its folder
	Module string // its path, the first line of go.mod
	Files  []*File
	Texts  []Text // everything readable, the Go files included
}

// File is a Go file.
type File struct {
	Text
	AST  *ast.File
	Fset *token.FileSet
	Test bool // its name ends in _test.go
}

// Text is a file of any kind.
type Text struct {
	Path string // below the root, with slashes
	Data []byte
}

// Finding is a breach of a rule.
type Finding struct {
	Path string
	Line int
	Text string // what is wrong, and how to mend it
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Text) }

// Dir returns the folder of the file below the root, "." for the root itself.
func (t Text) Dir() string { return path.Dir(t.Path) }

// Line returns the line number of a position.
func (f *File) Line(pos token.Pos) int { return f.Fset.Position(pos).Line }

// finding makes a Finding at a position.
func (f *File) finding(pos token.Pos, format string, args ...any) Finding {
	return Finding{f.Path, f.Line(pos), fmt.Sprintf(format, args...)}
}

var moduleLine = regexp.MustCompile(`(?m)^module (\S+)`)

// Load reads the tree of a module. Folders of test data, of what is built and
// of other modules are left out.
func Load(root string) (*Tree, error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	name := moduleLine.FindSubmatch(mod)
	if name == nil {
		return nil, fmt.Errorf("%s/go.mod names no module", root)
	}
	t := &Tree{Root: root, Module: string(name[1])}
	err = filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if leaveOut(rel, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || leaveOut(rel, d.Name()) {
			return nil
		}
		return t.add(filepath.ToSlash(rel), full)
	})
	return t, err
}

// leaveOut says what no rule looks at.
func leaveOut(rel, name string) bool {
	switch {
	case rel == ".":
		return false
	case rel == "bin", rel == "build", name == ".git", name == "testdata", name == "go.sum", name == "LICENSE":
		return true
	}
	return false
}

// add reads one file.
func (t *Tree) add(rel, full string) error {
	data, err := os.ReadFile(full)
	if err != nil {
		return err
	}
	if len(data) > 1<<20 || bytes.IndexByte(data, 0) >= 0 {
		return nil
	}
	text := Text{Path: rel, Data: data}
	t.Texts = append(t.Texts, text)
	if !strings.HasSuffix(rel, ".go") {
		return nil
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, rel, data, parser.ParseComments)
	if err != nil {
		return err
	}
	t.Files = append(t.Files, &File{Text: text, AST: file, Fset: fset, Test: strings.HasSuffix(rel, "_test.go")})
	return nil
}

// packages groups the files that are no tests by folder, in a fixed order.
func (t *Tree) packages() [][]*File {
	var all [][]*File
	at := map[string]int{}
	for _, f := range t.Files {
		if f.Test {
			continue
		}
		i, ok := at[f.Dir()]
		if !ok {
			i = len(all)
			at[f.Dir()] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], f)
	}
	return all
}

// sorted puts findings in the order of the tree.
func sorted(found []Finding) []Finding {
	slices.SortStableFunc(found, func(a, b Finding) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return found
}

package lint

import (
	"go/ast"
	"strings"
)

// The limits. Most functions are far shorter, most files under 500 lines.
const (
	maxFuncLines     = 80
	maxFileLines     = 600
	maxTestFileLines = 900
	maxMethods       = 6 // of an interface
	maxParams        = 5 // the arguments behind a format count with it
)

// escape is the one way out of the limits: a line above the declaration (the
// package clause for a file), with a reason.
const escape = "//lint:long"

// sizes checks the limits, and that every escape has a reason and a need.
func sizes(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		found = append(found, fileSizes(f)...)
	}
	return found
}

func fileSizes(f *File) []Finding {
	escapes, found := fileEscapes(f)
	report := func(node ast.Node, format string, args ...any) {
		above := f.Line(node.Pos()) - 1
		if _, ok := escapes[above]; ok {
			escapes[above] = true
			return
		}
		found = append(found, f.finding(node.Pos(), format+", or a line above: "+escape+" REASON", args...))
	}
	limit := maxFileLines
	if f.Test {
		limit = maxTestFileLines
	}
	if n := strings.Count(string(f.Data), "\n"); n > limit {
		// From the package clause on: its keyword is where the node starts.
		report(f.AST, "the file has %d lines, %d are the limit: one noun per file", n, limit)
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			lines := f.Line(n.End()) - f.Line(n.Type.Func) + 1
			if lines > maxFuncLines {
				report(n.Type, "%s has %d lines, %d are the limit: split it by stages", n.Name.Name, lines, maxFuncLines)
			}
			if params := countParams(n.Type); params > maxParams {
				report(n.Type, "%s has %d parameters, %d are the limit: pass a struct", n.Name.Name, params, maxParams)
			}
		case *ast.GenDecl:
			for _, spec := range n.Specs {
				if s, ok := spec.(*ast.TypeSpec); ok {
					interfaceSize(n, s, report)
				}
			}
		}
		return true
	})
	for line, used := range escapes {
		if !used {
			found = append(found, Finding{f.Path, line, "nothing below is too long: remove the escape"})
		}
	}
	return sorted(found)
}

// countParams counts the parameters, a variadic one left out.
func countParams(t *ast.FuncType) int {
	n := t.Params.NumFields()
	if n > 0 {
		if _, variadic := t.Params.List[len(t.Params.List)-1].Type.(*ast.Ellipsis); variadic {
			n--
		}
	}
	return n
}

// interfaceSize checks one type; a declaration without brackets starts at the
// keyword, not at the name.
func interfaceSize(decl *ast.GenDecl, s *ast.TypeSpec, report func(ast.Node, string, ...any)) {
	it, ok := s.Type.(*ast.InterfaceType)
	if !ok || it.Methods.NumFields() <= maxMethods {
		return
	}
	var at ast.Node = s
	if !decl.Lparen.IsValid() {
		at = &ast.BasicLit{ValuePos: decl.TokPos}
	}
	report(at, "interface %s has %d methods, %d are the limit: split off what not everybody has",
		s.Name.Name, it.Methods.NumFields(), maxMethods)
}

// fileEscapes returns the lines of the file's escapes, none of them used yet,
// and complains of those without a reason.
func fileEscapes(f *File) (map[int]bool, []Finding) {
	escapes := map[int]bool{}
	var found []Finding
	for _, group := range f.AST.Comments {
		for _, c := range group.List {
			reason, ok := strings.CutPrefix(c.Text, escape)
			switch {
			case !ok:
			case strings.TrimSpace(reason) == "":
				found = append(found, f.finding(c.Pos(), "the escape has no reason: write it behind %s", escape))
			default:
				escapes[f.Line(c.Pos())] = false
			}
		}
	}
	return escapes, found
}

package lint

import (
	"bytes"
	"go/ast"
	"go/format"
	"slices"
)

// code looks for tests that skip and for contexts that are kept.
func code(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if skips(n) {
					found = append(found, f.finding(n.Pos(), "a test that skips proves nothing: "+
						"fail with what is missing (lab.Need), or take the test away"))
				}
			case *ast.StructType:
				for _, field := range n.Fields.List {
					if isContext(field.Type) {
						found = append(found, f.finding(field.Pos(), "a context in a struct outlives its call: pass it as the first parameter"))
					}
				}
			}
			return true
		})
	}
	return found
}

// skips recognises the calls by which a test gives up.
func skips(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
		return false
	}
	on, ok := sel.X.(*ast.Ident)
	return ok && slices.Contains([]string{"t", "b", "f", "tb", "rt"}, on.Name)
}

func isContext(t ast.Expr) bool {
	sel, ok := t.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "context" && sel.Sel.Name == "Context"
}

// gofmt checks the formatting.
func gofmt(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		want, err := format.Source(f.Data)
		if err != nil {
			found = append(found, Finding{f.Path, 1, err.Error()})
			continue
		}
		if !bytes.Equal(want, f.Data) {
			found = append(found, Finding{f.Path, firstDifference(want, f.Data), "not formatted: make fmt"})
		}
	}
	return found
}

// firstDifference returns the number of the first line that differs.
func firstDifference(a, b []byte) int {
	x, y := bytes.SplitAfter(a, []byte("\n")), bytes.SplitAfter(b, []byte("\n"))
	for i := range min(len(x), len(y)) {
		if !bytes.Equal(x[i], y[i]) {
			return i + 1
		}
	}
	return min(len(x), len(y))
}

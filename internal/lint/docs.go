package lint

import (
	"go/ast"
	"strings"
)

// documented are the packages in which every exported name has a doc comment:
// those that other packages, or other people, build on.
var documented = []string{"block/...", "nbd/...", "backends/...", "formats/...", "filters/...", "fusefs/..."}

// docs checks for package comments everywhere and for doc comments on exported
// names in the documented packages.
func docs(t *Tree) []Finding {
	var found []Finding
	for _, files := range t.packages() {
		if !hasPackageComment(files) {
			f := files[0]
			found = append(found, f.finding(f.AST.Package, "package %s has no package comment: say what it is for, "+
				"who calls it, and which goroutine or lock owns what", f.AST.Name.Name))
		}
		for _, f := range files {
			if fits(f.Dir(), documented) {
				found = append(found, undocumented(f)...)
			}
		}
	}
	return found
}

func hasPackageComment(files []*File) bool {
	for _, f := range files {
		if written(f.AST.Doc) {
			return true
		}
	}
	return false
}

// written reports whether one of the comment groups holds words.
func written(groups ...*ast.CommentGroup) bool {
	for _, g := range groups {
		// Text leaves directives out.
		if g != nil && strings.TrimSpace(g.Text()) != "" {
			return true
		}
	}
	return false
}

// undocumented lists a file's exported names without a doc comment.
func undocumented(f *File) []Finding {
	var found []Finding
	report := func(name *ast.Ident) {
		found = append(found, f.finding(name.Pos(), "exported %s has no doc comment: units, shapes, errors", name.Name))
	}
	for _, decl := range f.AST.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && exportedReceiver(d) && !written(d.Doc) {
				report(d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				undocumentedSpec(d, spec, report)
			}
		}
	}
	return found
}

// undocumentedSpec looks at one spec of a declaration. A comment on the whole
// declaration counts for each constant and variable in it, and so does one
// behind them.
func undocumentedSpec(d *ast.GenDecl, spec ast.Spec, report func(*ast.Ident)) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && !written(d.Doc, s.Doc, s.Comment) {
				report(name)
			}
		}
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		if !written(s.Doc) && (d.Lparen.IsValid() || !written(d.Doc)) {
			report(s.Name)
		}
		it, ok := s.Type.(*ast.InterfaceType)
		if !ok {
			return
		}
		for _, m := range it.Methods.List {
			for _, name := range m.Names {
				if name.IsExported() && !written(m.Doc, m.Comment) {
					report(name)
				}
			}
		}
	}
}

// exportedReceiver reports whether a function can be reached from outside: it
// is no method, or one of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

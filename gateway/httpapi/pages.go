package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// pages serves the OpenAPI document and a page for people that is made of it. It
// is whole in itself: the readers that huma brings load programs from elsewhere.
// All of it is made once, now.
func (s *Server) pages(doc *huma.OpenAPI) {
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err) // of the types in this package
	}
	yaml, err := doc.YAML()
	if err != nil {
		panic(err)
	}
	var html bytes.Buffer
	if err := docsTemplate.Execute(&html, pageOf(doc)); err != nil {
		panic(err)
	}
	s.page("/openapi.json", "application/openapi+json", text)
	s.page("/openapi.yaml", "application/openapi+yaml", yaml)
	s.page("/docs", "text/html; charset=utf-8", html.Bytes())
	s.mux.Handle("GET /{$}", http.RedirectHandler("/docs", http.StatusFound))
}

func (s *Server) page(path, kind string, text []byte) {
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(text) // nobody is left to tell
	})
}

//go:embed docs.html
var docsText string

var docsTemplate = template.Must(template.New("docs").Parse(docsText))

// page is what the template shows.
type page struct {
	Title, Version string
	About          []string
	Operations     []operation
	Schemas        []schema
}

type operation struct {
	ID, Method, Path, Summary, About string
	Parameters                       []member
	Body, Answer                     reference
}

type schema struct {
	Name    string
	Members []member
}

type member struct {
	Name, About, Where string
	Required           bool
	Type               reference
	Values             []string
}

// reference is a type: a schema's name, or in words.
type reference struct{ Schema, Text string }

func pageOf(doc *huma.OpenAPI) page {
	p := page{Title: doc.Info.Title, Version: doc.Info.Version, About: strings.Split(doc.Info.Description, "\n\n")}
	for path, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Patch, item.Delete} {
			if op != nil {
				p.Operations = append(p.Operations, operationOf(path, op))
			}
		}
	}
	slices.SortFunc(p.Operations, func(a, b operation) int {
		return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
	})
	for name, s := range doc.Components.Schemas.Map() {
		p.Schemas = append(p.Schemas, schema{Name: name, Members: membersOf(s)})
	}
	slices.SortFunc(p.Schemas, func(a, b schema) int { return strings.Compare(a.Name, b.Name) })
	return p
}

func operationOf(path string, op *huma.Operation) operation {
	o := operation{ID: op.OperationID, Method: op.Method, Path: path, Summary: op.Summary, About: op.Description}
	for _, par := range op.Parameters {
		o.Parameters = append(o.Parameters, member{
			Name: par.Name, About: par.Description, Where: par.In, Required: par.Required, Type: referenceTo(par.Schema),
		})
	}
	if op.RequestBody != nil {
		o.Body = contentOf(op.RequestBody.Content)
	}
	for status, answer := range op.Responses {
		if strings.HasPrefix(status, "2") {
			o.Answer = contentOf(answer.Content)
			o.Answer.Text = strings.TrimSpace(status + " " + o.Answer.Text)
		}
	}
	return o
}

func contentOf(content map[string]*huma.MediaType) reference {
	for kind, c := range content {
		return reference{Schema: referenceTo(c.Schema).Schema, Text: kind}
	}
	return reference{}
}

func membersOf(s *huma.Schema) []member {
	var all []member
	for name, p := range s.Properties {
		m := member{Name: name, About: p.Description, Required: slices.Contains(s.Required, name), Type: referenceTo(p)}
		for _, v := range p.Enum {
			m.Values = append(m.Values, v.(string))
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func referenceTo(s *huma.Schema) reference {
	switch kinds, _ := s.Extensions["type"].([]string); {
	case s.Ref != "":
		return reference{Schema: s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]}
	case s.Type == huma.TypeArray:
		of := referenceTo(s.Items)
		return reference{Schema: of.Schema, Text: strings.TrimSpace("list of " + of.Text)}
	case len(kinds) > 0:
		return reference{Text: strings.Join(kinds, " or ")}
	}
	return reference{Text: s.Type}
}

package httpapi

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// routes are all there are.
var routes = []string{
	"delete /v1/exports/{name}", "get /v1/events", "get /v1/exports", "get /v1/exports/{name}", "get /v1/exports/{name}/stats", "get /v1/stats",
	"get /v1/status", "patch /v1/exports/{name}/settings", "post /v1/exports", "post /v1/exports/{name}/resize", "post /v1/exports/{name}/resume",
	"post /v1/reload", "put /v1/exports/{name}/settings",
}

// document is the part of OpenAPI that is looked at.
type document struct {
	OpenAPI string
	Info    struct{ Title, Version, Description string }
	Paths   map[string]map[string]struct {
		OperationID string
		Summary     string
		Parameters  []struct {
			Name, In, Description string
			Required              bool
		}
		RequestBody struct{ Content map[string]any }
		Responses   map[string]struct {
			Description string
			Content     map[string]struct{ Schema map[string]any }
		}
	}
	Components struct {
		Schemas map[string]struct {
			Type                 string
			AdditionalProperties *bool
			Properties           map[string]map[string]any
			Required             []string
		}
	}
}

func TestOpenAPI(t *testing.T) {
	b := start(t, standardLimits, nil)
	res, text := b.ask("GET", "/openapi.json", "")
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "application/openapi+json" {
		t.Errorf("%d %s", res.StatusCode, got)
	}
	var doc document
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Title == "" || doc.Info.Version != "v1" {
		t.Errorf("%s %+v", doc.OpenAPI, doc.Info)
	}
	var found []string
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			route := method + " " + path
			found = append(found, route)
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" {
				t.Errorf("%s: id %q, summary %q", route, op.OperationID, op.Summary)
			}
			ids[op.OperationID] = true
			if _, ok := op.Responses["default"].Content["application/problem+json"]; !ok || len(op.Responses) != 2 {
				t.Errorf("%s: answers %v", route, op.Responses)
			}
			for _, p := range op.Parameters {
				if p.Description == "" || p.Required != (p.In == "path") {
					t.Errorf("%s: parameter %+v", route, p)
				}
			}
			if inPath := strings.Contains(path, "{name}"); inPath && (len(op.Parameters) == 0 || op.Parameters[0].Name != "name") {
				t.Errorf("%s: parameters %v", route, op.Parameters)
			}
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, routes) {
		t.Errorf("routes %q", found)
	}
	checkSchemas(t, doc, text)
}

// checkSchemas: each member is described, and each reference leads somewhere.
func checkSchemas(t *testing.T, doc document, text string) {
	t.Helper()
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"\$ref":"([^"]*)"`).FindAllStringSubmatch(text, -1) {
		name, ok := strings.CutPrefix(m[1], "#/components/schemas/")
		if _, there := doc.Components.Schemas[name]; !ok || !there {
			t.Errorf("%s leads nowhere", m[1])
		}
		used[name] = true
	}
	for name, s := range doc.Components.Schemas {
		if s.Type != "object" || s.AdditionalProperties == nil || *s.AdditionalProperties || len(s.Properties) == 0 || !used[name] {
			t.Errorf("%s: %+v, used: %t", name, s, used[name])
		}
		for member, p := range s.Properties {
			if p["description"] == nil || p["description"] == "" {
				t.Errorf("%s.%s is not described", name, member)
			}
			if kinds, ok := p["type"].([]any); ok && name != "SettingsPatch" && slices.Contains(kinds, "null") {
				t.Errorf("%s.%s: %v", name, member, kinds)
			}
		}
	}
	throttle := doc.Components.Schemas["Throttle"].Properties
	for member, want := range map[string]string{"read_iops": `"integer"`, "read_bytes": `["integer","string"]`, "burst": `"string"`} {
		if got, _ := json.Marshal(throttle[member]["type"]); string(got) != want {
			t.Errorf("%s: %s, want %s", member, got, want)
		}
	}
	patch, _ := json.Marshal(doc.Components.Schemas["SettingsPatch"].Properties)
	for _, part := range []string{`"type":["object","null"]`, `"type":["integer","string","null"]`, `"type":["array","null"]`} {
		if !strings.Contains(string(patch), part) {
			t.Errorf("SettingsPatch has no %s: %s", part, patch)
		}
	}
	if got := doc.Components.Schemas["Spec"].Required; !slices.Equal(got, []string{"name", "url"}) {
		t.Errorf("%v are required of a Spec", got)
	}
}

// TestPages: the YAML document says the same, and the page for people tells of
// each request and loads nothing.
func TestPages(t *testing.T) {
	b := start(t, standardLimits, nil)
	_, yaml := b.ask("GET", "/openapi.yaml", "")
	res, html := b.ask("GET", "/docs", "")
	if got := res.Header.Get("Content-Type"); got != "text/html; charset=utf-8" || !strings.HasPrefix(res.Header.Get("Content-Security-Policy"), "default-src 'none';") {
		t.Errorf("%v", res.Header)
	}
	if !strings.Contains(yaml, "openapi: 3.1.0\n") {
		t.Errorf("%.200s", yaml)
	}
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		if !strings.Contains(yaml, path+":\n") && !strings.Contains(yaml, path+`":`+"\n") {
			t.Errorf("the document has no %s", path)
		}
		if !strings.Contains(html, "<code>"+strings.ToUpper(method)+" "+path+"</code>") {
			t.Errorf("the page has no %s", route)
		}
	}
	for _, no := range []string{"<script", "http:", "https:", "src=", "@import", "url("} {
		if strings.Contains(html, no) {
			t.Errorf("the page has %q", no)
		}
	}
	if ids := regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(html, -1); len(ids) < 20 {
		t.Errorf("%d links", len(ids))
	} else {
		for _, id := range ids {
			if !strings.Contains(html, `id="`+id[1]+`"`) {
				t.Errorf("#%s leads nowhere", id[1])
			}
		}
	}
	if res, _ := b.ask("GET", "/", ""); res.StatusCode != 200 || res.Request.URL.Path != "/docs" {
		t.Errorf("/ is %s", res.Request.URL)
	}
}

//go:build interop

package httpapi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/gateway"
	"sluice/gateway/wire"
	"sluice/internal/lab"
)

// TestCurl does with curl what docs/api.md shows.
func TestCurl(t *testing.T) {
	lab.Need(t, "curl")
	pki := lab.Certs(t)
	b := start(t, standardLimits, func(c *Config) { c.TLS = serverTLS(t, pki) })
	l := tcp(t)
	b.serve(l)
	curl := func(args ...string) string {
		t.Helper()
		return lab.Run(t, "curl", append([]string{"--silent", "--show-error", "--max-time", "30"}, args...)...)
	}
	unix := func(path string, args ...string) string {
		t.Helper()
		return curl(append([]string{"--unix-socket", b.socket, "http://sluice" + path}, args...)...)
	}
	var st gateway.Status
	strict(t, unix("/v1/exports", "--json", `{"name": "a b", "url": "/images/a.img", "throttle": {"read_bytes": "10M"}}`), &st)
	if st.Spec.Name != "a b" || st.Spec.Throttle.ReadBytes != 10<<20 || st.State != gateway.Serving {
		t.Errorf("%+v", st)
	}
	strict(t, unix("/v1/exports/a%20b/settings", "--request", "PATCH", "--json", `{"throttle": {"read_iops": 100}}`), &st)
	if st.Spec.Throttle.ReadBytes != 10<<20 || st.Spec.Throttle.ReadIOPS != 100 {
		t.Errorf("%+v", st)
	}
	strict(t, unix("/v1/exports/a%20b/resize", "--json", `{"size": "20G"}`), &st)
	if st.Size != 20<<30 {
		t.Errorf("%+v", st)
	}
	var p wire.Problem
	strict(t, unix("/v1/exports", "--json", `{"name": "a b", "url": "/images/a.img"}`), &p)
	if p.Status != 409 || p.Kind != "exists" {
		t.Errorf("%+v", p)
	}
	var all wire.Exports
	strict(t, curl("--cacert", pki.Path("ca-cert.pem"), "--cert", pki.Path("client-cert.pem"), "--key", pki.Path("client-key.pem"),
		"https://"+l.Addr().String()+"/v1/exports"), &all)
	if len(all.Exports) != 1 {
		t.Errorf("%+v", all)
	}
	if got := unix("/v1/exports/a%20b", "--request", "DELETE", "--write-out", "%{http_code}"); got != "204" {
		t.Errorf("%q", got)
	}

	follow := lab.Start(t, "curl", "--silent", "--no-buffer", "--unix-socket", b.socket, "http://sluice/v1/events?after=3")
	line := follow.Expect("data: ")
	var e gateway.Event
	strict(t, strings.TrimPrefix(line, "data: "), &e)
	if e.Kind != gateway.ExportRemoved || e.Seq != 4 || e.Export != "a b" {
		t.Errorf("%+v", e)
	}
	b.srv.Close()
	if err := follow.Wait(); err != nil {
		t.Errorf("curl did not take the stream for whole: %v", err)
	}
}

// TestYAMLIsTheSameDocument reads the two forms of the document with another
// program.
func TestYAMLIsTheSameDocument(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has the module
	lab.Need(t, python)
	b := start(t, standardLimits, nil)
	dir := t.TempDir()
	for _, name := range []string{"openapi.json", "openapi.yaml"} {
		_, text := b.ask("GET", "/"+name, "")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)"
	var fromJSON, fromYAML any
	text, err := os.ReadFile(filepath.Join(dir, "openapi.json"))
	if err == nil {
		err = json.Unmarshal(text, &fromJSON)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(lab.Run(t, python, "-c", script, filepath.Join(dir, "openapi.yaml"))), &fromYAML); err != nil {
		t.Fatal(err)
	}
	one, _ := json.Marshal(fromJSON)
	two, _ := json.Marshal(fromYAML)
	if string(one) != string(two) {
		t.Errorf("JSON\n%s\nYAML\n%s", one, two)
	}
}

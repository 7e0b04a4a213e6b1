package suite

import (
	"os"
	"testing"
)

func TestParseFio(t *testing.T) {
	out, err := os.ReadFile("testdata/fio-mix.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseFio(out)
	if err != nil {
		t.Fatal(err)
	}
	want := fioResult{ops: 62506 + 27152, bytes: 256024576 + 111214592, seconds: 1.004, p50: 370.688, p99: 19791.872}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseFioRejects(t *testing.T) {
	for name, out := range map[string]string{
		"nothing":  "",
		"text":     "fio: engine nbd not loadable\n",
		"cut":      "{\n  \"jobs\" : [",
		"no job":   "{\n  \"jobs\" : [] }",
		"an error": "{\n  \"jobs\" : [ {\"error\": 5} ] }",
		"no I/O":   "{\n  \"jobs\" : [ {\"error\": 0, \"read\": {\"runtime\": 1000}} ] }",
	} {
		if r, err := parseFio([]byte(out)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, r)
		}
	}
}

// The latency of a pure write load is that of its writes.
func TestParseFioWrites(t *testing.T) {
	out := `{
 "jobs" : [{"error": 0, "read": {"clat_ns": {}}, "write": {"io_bytes": 8192, "total_ios": 2, "runtime": 500,
  "clat_ns": {"percentile": {"50.000000": 1500, "99.000000": 2500}}}}] }`
	got, err := parseFio([]byte(out))
	if want := (fioResult{ops: 2, bytes: 8192, seconds: 0.5, p50: 1.5, p99: 2.5}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

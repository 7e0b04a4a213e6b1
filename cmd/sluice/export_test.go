package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/endpoint"
	"sluice/gateway/httpapi"
	"sluice/gateway/httpapi/apitest"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// api starts a daemon's API over a gateway without devices; the commands find it
// at the address.
func api(t *testing.T) (fake *apitest.Fake, address string) {
	t.Helper()
	fake = apitest.New()
	address = "unix:" + lab.Socket(t)
	a, err := endpoint.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := endpoint.Listen(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	apitest.Serve(t, httpapi.New(httpapi.Config{Gateway: fake, Version: "v1", Started: apitest.Start}), l)
	return fake, address
}

func shownBy(t *testing.T, f *apitest.Fake, name string) gateway.Status {
	t.Helper()
	st, err := f.Show(name)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestExportLife goes through the commands.
func TestExportLife(t *testing.T) {
	fake, at := api(t)
	dir := t.TempDir()
	do := func(args ...string) string {
		t.Helper()
		return must(t, dir, append([]string{"export", "--api", at}, args...)...)
	}
	ready := do("add", "disk", "disk.img", "--description", "the disk", "--read-iops", "100", "--on-error", "hold", "--on-error-limit", "5m")
	if want := "ready nbd+unix:///disk?socket=/run/sluice/nbd.sock\nready fuse /run/sluice/fuse/disk\n"; ready != want {
		t.Errorf("%q", ready)
	}
	if got := shownBy(t, fake, "disk").Spec.URL; got != dir+"/disk.img" {
		t.Errorf("the daemon was told %s", got)
	}
	if got := do("add", "other one", "nbd://u:secret@host/x", "--no-fuse", "--read-only"); strings.Contains(got, "fuse") {
		t.Errorf("%q", got)
	}
	fake.Set("disk", func(st *gateway.Status) {
		st.State, st.Error, st.HeldNow, st.Connections, st.OpenFiles = gateway.Held, "read disk.img at 0: input/output error", 3, 2, 1
		st.Spec.URL = "/images/disk.img"
	})
	do("set", "disk", "--write-bytes", "10M", "--burst", "1s", "--slow-request", "500ms", "--fault", "any:delay=1s", "--on-error-no-space")
	fake.Set("other one", func(st *gateway.Status) { st.Source, st.FileError = gateway.FromConfig, "/srv was unmounted" })
	if got, want := do("set", "other one", "--burst", "1s"), "other one is in the daemon's configuration: the change lasts until that is read again; make it there too to keep it\n"; got != want {
		t.Errorf("%q", got)
	}
	if got := do("show", "other one"); !strings.Contains(got, "none: /srv was unmounted\n") {
		t.Errorf("%q", got)
	}
	fake.Set("other one", func(st *gateway.Status) {
		st.Source, st.FileError, st.Spec.Settings = gateway.FromAPI, "", spec.Settings{}
	})
	golden(t, "export-list.txt", do("list"))
	golden(t, "export-list.json", do("list", "--json"))
	golden(t, "export-show.txt", do("show", "disk"))
	golden(t, "export-show.json", do("show", "disk", "--json"))
	golden(t, "export-stats.txt", do("stats"))
	golden(t, "export-stats.json", do("stats", "disk", "--json"))
	if got := do("resume", "disk"); got != "" || shownBy(t, fake, "disk").State != gateway.Serving {
		t.Errorf("%q", got)
	}
	do("resize", "disk", "3G")
	do("resize", "disk", "+512M")
	if got := shownBy(t, fake, "disk").Size; got != 3<<30+512<<20 {
		t.Errorf("%d bytes", got)
	}
	do("resize", "disk", "1G", "--shrink")
	if got := do("remove", "disk", "other one", "--json"); got != "{\n  \"removed\": [\n    \"disk\",\n    \"other one\"\n  ]\n}\n" {
		t.Errorf("%q", got)
	}
	if got := do("list", "--json"); got != "[]\n" {
		t.Errorf("%q", got)
	}
	if got := do("list"); strings.Count(got, "\n") != 1 {
		t.Errorf("%q", got)
	}
	if got := must(t, dir, "--api", at, "export", "list", "--json"); got != "[]\n" { // the flag may stand in front
		t.Errorf("%q", got)
	}
}

// TestExportAddFlags: each flag gets to the daemon, and is missing without.
func TestExportAddFlags(t *testing.T) {
	fake, at := api(t)
	dir := t.TempDir()
	want := spec.Spec{
		Name: "a", URL: dir + "/x/../d.img", Format: "raw", Description: "d", ReadOnly: true, Direct: true, Share: true, Unlocked: true,
		NBD: []string{"unix:" + dir + "/s", "tcp:127.0.0.1:1"}, MaxConnections: 7, Allow: []string{"one", "two"},
		Settings: spec.Settings{
			OnError:     spec.OnError{Policy: "read-only", Limit: spec.Duration(time.Minute), NoSpace: true},
			Throttle:    spec.Throttle{ReadIOPS: 1, WriteIOPS: 2, ReadBytes: 3 << 10, WriteBytes: 4, Burst: spec.Duration(5 * time.Second)},
			SlowRequest: spec.Duration(6 * time.Second), Faults: []string{"read:error=io,after=3", "write:torn"},
		},
	}
	must(t, dir, "export", "--api", at, "add", "a", "x/../d.img", "--format", "raw", "--description", "d", "--read-only", "--direct", "--share", "--unlocked",
		"--nbd", "unix:s", "--nbd", "tcp:127.0.0.1:1", "--max-connections", "7", "--allow", "one", "--allow", "two",
		"--on-error", "read-only", "--on-error-limit", "1m", "--on-error-no-space", "--read-iops", "1", "--write-iops", "2", "--read-bytes", "3K",
		"--write-bytes", "4", "--burst", "5s", "--slow-request", "6s", "--fault", "read:error=io,after=3", "--fault", "write:torn")
	if diff := cmp.Diff(want, shownBy(t, fake, "a").Spec); diff != "" {
		t.Error(diff)
	}
	text := must(t, dir, "export", "--api", at, "add", "b", "/abs", "--no-fuse", "--json")
	var st gateway.Status
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec.Spec{Name: "b", URL: "/abs", NoFUSE: true}, st.Spec); diff != "" {
		t.Error(diff)
	}
	must(t, dir, "export", "--api", at, "add", "c", "/abs", "--passthrough")
	if diff := cmp.Diff(spec.Spec{Name: "c", URL: "/abs", Passthrough: true}, shownBy(t, fake, "c").Spec); diff != "" {
		t.Error(diff)
	}
}

// TestExportSet changes what is given alone.
func TestExportSet(t *testing.T) {
	fake, at := api(t)
	dir := t.TempDir()
	full := spec.Settings{
		OnError:     spec.OnError{Policy: "read-only", Limit: spec.Duration(time.Minute), NoSpace: true},
		Throttle:    spec.Throttle{ReadIOPS: 1, WriteIOPS: 2, ReadBytes: 3, WriteBytes: 4, Burst: spec.Duration(5 * time.Second)},
		SlowRequest: spec.Duration(6 * time.Second), Faults: []string{"read:hang"},
	}
	if _, err := fake.Add(t.Context(), spec.Spec{Name: "d", URL: "/x"}); err != nil {
		t.Fatal(err)
	}
	for flags, change := range map[string]func(*spec.Settings){
		"--on-error error":                    func(s *spec.Settings) { s.OnError.Policy = "error" },
		"--on-error-limit 0":                  func(s *spec.Settings) { s.OnError.Limit = 0 },
		"--on-error-no-space=false":           func(s *spec.Settings) { s.OnError.NoSpace = false },
		"--read-iops 9":                       func(s *spec.Settings) { s.Throttle.ReadIOPS = 9 },
		"--write-iops 0":                      func(s *spec.Settings) { s.Throttle.WriteIOPS = 0 },
		"--read-bytes 9K":                     func(s *spec.Settings) { s.Throttle.ReadBytes = 9 << 10 },
		"--write-bytes 0":                     func(s *spec.Settings) { s.Throttle.WriteBytes = 0 },
		"--burst 9s --read-iops 3":            func(s *spec.Settings) { s.Throttle.Burst, s.Throttle.ReadIOPS = spec.Duration(9*time.Second), 3 },
		"--slow-request 0s":                   func(s *spec.Settings) { s.SlowRequest = 0 },
		"--fault any:hang --fault write:drop": func(s *spec.Settings) { s.Faults = []string{"any:hang", "write:drop"} },
		"--no-faults":                         func(s *spec.Settings) { s.Faults = nil },
		"--no-faults --on-error hold":         func(s *spec.Settings) { s.Faults, s.OnError.Policy = nil, "hold" },
	} {
		fake.Set("d", func(st *gateway.Status) { st.Spec.Settings = full })
		if out := must(t, dir, append([]string{"export", "--api", at, "set", "d"}, strings.Fields(flags)...)...); out != "" {
			t.Errorf("%s: %q", flags, out)
		}
		want := full
		change(&want)
		if diff := cmp.Diff(want, shownBy(t, fake, "d").Spec.Settings); diff != "" {
			t.Errorf("%s: %s", flags, diff)
		}
	}
}

// TestExportUsage: what makes no sense is not sent.
func TestExportUsage(t *testing.T) {
	fake, at := api(t)
	fake.Hook = func(_ context.Context, op, name string) error {
		t.Errorf("%s %q", op, name)
		return nil
	}
	for _, line := range []string{
		"", "lst", "add", "add a", "add a b c", "add a/b x", "add .. x", "add a x --on-error ignore", "add a x --read-iops -1", "add a x --read-iops 1.5",
		"add a x --read-bytes 1X", "add a x --burst soon", "add a x --burst -1s", "add a x --nbd nowhere", "add a x --max-connections -1",
		"add a x --format nonsense", "add a x --passthrough --no-fuse", "add a x --name b", "list a", "show", "show a b", "show a/b", "remove", "remove a/b", "set", "set a",
		"set a --no-faults --fault x", "set a --on-error ignore", "set a --slow-request -1s", "set a/b --read-iops 1", "set a --description x",
		"resize a", "resize a 1X", "resize a +", "resize a/b 1", "resume", "stats a b", "stats a/b", "events a", "events --after -1", "list --api here",
		"list --api tcp:h", "list --api tcp:h:1", "list --api tcp:h:1 --api-cert c", "list --api-ca c",
	} {
		o := sluice(t, t.TempDir(), append([]string{"export", "--api", at}, strings.Fields(line)...)...)
		if o.code != exitUsage || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "sluice: ") ||
			!strings.Contains(o.stderr, "(see sluice export") || !strings.Contains(o.stderr, "--help)") {
			t.Errorf("sluice export %s: exit code %d, stdout %q, stderr %q", line, o.code, o.stdout, o.stderr)
		}
	}
	o := sluice(t, t.TempDir(), "export", "shw")
	if !strings.Contains(o.stderr, `unknown command "shw"; did you mean set or show?`) {
		t.Errorf("%q", o.stderr)
	}
}

// TestExportFailures: exit code 1 and one line that names the object and the cause.
func TestExportFailures(t *testing.T) {
	fake, at := api(t)
	dir := t.TempDir()
	for _, name := range []string{"disk", "used"} {
		if _, err := fake.Add(t.Context(), spec.Spec{Name: name, URL: "/x"}); err != nil {
			t.Fatal(err)
		}
	}
	fake.Use("used", true)
	for line, want := range map[string]string{
		"show none":                        "find export none: not found",
		"add disk x":                       "add export disk: already exists",
		"remove none":                      "remove export none: not found",
		"remove used":                      "remove export used: 1 client uses it; --force ends its clients, except with passthrough",
		"resume none":                      "find export none: not found",
		"stats none":                       "find export none: not found",
		"resize disk 1M":                   "resize export disk: 1048576 bytes are less than the 1073741824 it has; the rest would be lost (shrink permits that)",
		"resize disk +9223372036854775807": "resize export disk: +9223372036854775807 bytes more than 1073741824 are too many",
		"resize none +1":                   "find export none: not found",
		"set none --burst 1s":              "find export none: not found",
		"list --api unix:/no/s":            "reach the daemon at unix:/no/s: it is not running there; start it (sluice daemon), or say where it is (--api ADDRESS)",
		"events --api unix:/no/s":          "reach the daemon at unix:/no/s: it is not running there",
		"list --api tcp:127.0.0.1:1 --api-cert c --api-key k --api-ca a": "read certificate c: no such file or directory",
	} {
		o := sluice(t, dir, append([]string{"export", "--api", at}, strings.Fields(line)...)...)
		if o.code != exitFailure || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "sluice: "+want) {
			t.Errorf("sluice export %s: exit code %d, stdout %q, stderr\n%s, want\n%s", line, o.code, o.stdout, o.stderr, want)
		}
	}
	// What can be removed is.
	o := sluice(t, dir, "export", "--api", at, "remove", "used", "disk", "none")
	if o.code != exitFailure || o.stderr != "sluice: remove export used: 1 client uses it; --force ends its clients, except with passthrough\nsluice: remove export none: not found\n" {
		t.Errorf("%+v", o)
	}
	if _, err := fake.Show("disk"); block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
	must(t, dir, "export", "--api", at, "remove", "used", "--force")
}

// TestExportNames: names that a terminal or a URL would take for something else.
func TestExportNames(t *testing.T) {
	_, at := api(t)
	dir := t.TempDir()
	for _, name := range []string{"a b", "100%", "%2e%2e", "größe", `"q"`, "a?b#c", "-x", "*"} {
		must(t, dir, "export", "--api", at, "add", "--", name, "disk.img")
		if got := must(t, dir, "export", "--api", at, "show", "--", name); !strings.Contains(got, printable(name)) {
			t.Errorf("%s: %s", name, got)
		}
		must(t, dir, "export", "--api", at, "set", "--read-iops", "1", "--", name)
		must(t, dir, "export", "--api", at, "remove", "--", name)
	}
}

// TestExportEvents follows until it is interrupted, which is no failure.
func TestExportEvents(t *testing.T) {
	fake, at := api(t)
	if _, err := fake.Add(t.Context(), spec.Spec{Name: "a b", URL: "/x"}); err != nil {
		t.Fatal(err)
	}
	fake.Set("a b", func(st *gateway.Status) { st.State, st.Error = gateway.Held, "away \x1b[1m" })
	if err := fake.Remove(t.Context(), "a b", false); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":          "1 2026-11-01T12:00:00Z added a b serving\n2 2026-11-01T12:00:00Z state a b held: away \\x1b[1m\n3 2026-11-01T12:00:00Z removed a b\n",
		"--after 2": "3 2026-11-01T12:00:00Z removed a b\n",
		"--after 9": "3 2026-11-01T12:00:00Z lost\n",
	} {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		out := &until{want: strings.Count(want, "\n"), done: cancel}
		var stderr strings.Builder
		code := run(ctx, append([]string{"export", "events", "--api", at}, strings.Fields(args)...), out, &stderr)
		if code != exitOK || out.String() != want || stderr.String() != "" {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out.String(), stderr.String())
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out := &until{want: 3, done: cancel}
	if code := run(ctx, []string{"export", "events", "--api", at, "--json"}, out, os.Stderr); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var e gateway.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Seq != uint64(i+1) || e.Export != "a b" {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// until takes lines, and calls done when there are enough.
type until struct {
	strings.Builder
	want int
	done func()
}

func (u *until) Write(b []byte) (int, error) {
	n, err := u.Builder.Write(b)
	if strings.Count(u.String(), "\n") >= u.want {
		u.done()
	}
	return n, err
}

// TestExportInterrupted: a daemon that takes the connection and says nothing.
func TestExportInterrupted(t *testing.T) {
	socket := lab.Socket(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, line := range []string{"list", "show a", "add a /x", "remove a", "set a --burst 1s", "resize a +1", "stats"} {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		code := make(chan int)
		var stdout, stderr strings.Builder
		go func() {
			code <- run(ctx, append([]string{"export", "--api", "unix:" + socket}, strings.Fields(line)...), &stdout, &stderr)
		}()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if c := <-code; c != exitFailure || stdout.String() != "" || stderr.String() != "sluice: reach the daemon at unix:"+socket+": interrupted\n" {
			t.Errorf("%s: exit code %d, %q, %q", line, c, stdout.String(), stderr.String())
		}
		_ = conn.Close()
	}
}

// TestExportCompletion asks the daemon for names; one that is not there has none.
func TestExportCompletion(t *testing.T) {
	fake, at := api(t)
	dir := t.TempDir()
	for _, name := range []string{"disk", "db one"} {
		if _, err := fake.Add(t.Context(), spec.Spec{Name: name, URL: "/x"}); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"show ":                  "db one disk :4",
		"remove disk ":           "db one disk :4",
		"stats ":                 "db one disk :4",
		"set ":                   "db one disk :4",
		"resume ":                "db one disk :4",
		"resize ":                "db one disk :4",
		"resize disk ":           ":4",
		"add ":                   ":4",
		"add x ":                 ":0", // file names
		"list ":                  ":4",
		"add a b --on-error ":    "hold error read-only :4",
		"add a b --format ":      "raw :4",
		"show --api unix:/no/s ": ":4",
		"sh":                     "show :4",
	} {
		words := append([]string{"export", "--api", at}, strings.Split(line, " ")...)
		if got := strings.Join(strings.Fields(completed(t, dir, words...)), " "); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// TestAbsolute: what a URL says of local files begins at the root.
func TestAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	here := (&url.URL{Path: dir}).EscapedPath()
	for from, want := range map[string]string{
		"disk.img": dir + "/disk.img", "../d": dir + "/../d", "/a/../b": "/a/../b", "a?b": dir + "/a?b", "x/y/": dir + "/x/y/", "": "",
		"file:///a": "file:///a", "mem://1G": "mem://1G", "nbd://h/x": "nbd://h/x",
		"nbd+unix:///x?socket=/s":              "nbd+unix:///x?socket=/s",
		"nbd+unix:///x?socket=a%20b%26;x-y=1":  "nbd+unix:///x?socket=" + here + "/a%20b%26;x-y=1",
		"nbds+unix:///?x-a=s&socket=s":         "nbds+unix:///?x-a=s&socket=" + here + "/s",
		"nbds://h/?tls-certificates=pki&x-z=ü": "nbds://h/?tls-certificates=" + here + "/pki&x-z=ü",
		"nbd+unix:///x?socket=%00abstract":     "nbd+unix:///x?socket=%00abstract",
		"nbd+unix:///x?socket=":                "nbd+unix:///x?socket=",
	} {
		if got, err := absolute(from); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", from, got, err, want)
		}
	}
}

func TestLatency(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "-", 0.0000005: "0.50us", 0.000042: "42.0us", 0.00031: "310us", 0.0009996: "1000us", 0.00125: "1.25ms", 0.31: "310ms", 3.2: "3.20s", 1234: "1234s",
	} {
		if got := latency(seconds); got != want {
			t.Errorf("%v: %s, want %s", seconds, got, want)
		}
	}
}

// TestExportManPages: the commands below export have pages of their own.
func TestExportManPages(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "man", ".")
	for _, name := range []string{"add", "events", "list", "remove", "resize", "resume", "set", "show", "stats"} {
		text, err := os.ReadFile(filepath.Join(dir, "sluice-export-"+name+".1"))
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("sluice export %s", name)) || !strings.Contains(string(text), `--api`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

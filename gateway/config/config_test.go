package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/block"
	"sluice/gateway/spec"
)

const whole = `
api = ["unix:/run/a.sock", "tcp:10.0.0.1:9800"]
nbd = []
fuse = "/srv/x"
metrics = ""
state = "/var/lib/x"
log_level = "debug"
allow_faults = true
max_connections = 7
busy_poll = "0s"
shutdown_timeout = "1m"
slow_request = "2s"
tls = { mode = "optional", cert = "/c", key = "/k", ca = "/a", allow = ["h"] }
api_tls.cert = "/c"
api_tls.key = "/k"
api_tls.ca = "/a"

[fuse_options]
mode = "0640"
uid = 36
gid = 0x24
allow_other = true

[[export]]
name = "one"
url = "mem://1G"
nbd = [
  "unix:/run/one.sock", # its own
  "tcp:[::1]:0",
]
throttle.read_bytes = "10M"
throttle.write_bytes = 1_000

[export.on_error]
policy = "error"

[[export]]
name = "zwei ü"
url = "/x.raw"
throttle = { burst = "1s" }
faults = ["read:error=io"]
`

func TestParse(t *testing.T) {
	got, err := Parse("x", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	certs := Certs{Cert: "/c", Key: "/k", CA: "/a"}
	mutual := certs
	mutual.Allow = []string{"h"}
	want := &Config{
		API: []string{"unix:/run/a.sock", "tcp:10.0.0.1:9800"}, NBD: []string{}, FUSE: "/srv/x", State: "/var/lib/x",
		LogLevel: "debug", AllowFaults: true, MaxConnections: 7,
		ShutdownTimeout: spec.Duration(time.Minute), SlowRequest: spec.Duration(2 * time.Second),
		TLS: TLS{Mode: "optional", Certs: mutual}, APITLS: certs,
		FUSEOptions: FUSEOptions{Mode: 0o640, UID: 36, GID: 36, AllowOther: true},
		Exports: []spec.Spec{
			{Name: "one", URL: "mem://1G", NBD: []string{"unix:/run/one.sock", "tcp:[::1]:0"}, Settings: spec.Settings{
				OnError: spec.OnError{Policy: "error"}, Throttle: spec.Throttle{ReadBytes: 10 << 20, WriteBytes: 1000},
			}},
			{Name: "zwei ü", URL: "/x.raw", Settings: spec.Settings{
				Throttle: spec.Throttle{Burst: spec.Duration(time.Second)}, Faults: []string{"read:error=io"},
			}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := got.Check(); err != nil {
		t.Error(err)
	}
}

func TestOtherFormsMeanTheSame(t *testing.T) {
	got, err := Parse("x", []byte("\"export\" = [ { \"name\" = 'a', url = '''/a''' },\r\n {name=\"b\",url=\"/b\"} ]\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Exports = []spec.Spec{{Name: "a", URL: "/a"}, {Name: "b", URL: "/b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNothingMeansTheDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "[tls]\n"} {
		got, err := Parse("x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Default(), got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.toml")
	if _, err := Load(path); block.KindOf(err) != block.NotFound || err.Error() != "read configuration "+path+": no such file or directory" {
		t.Error(err)
	}
	if _, err := Load(t.TempDir()); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a folder: %v", err)
	}
	if err := os.WriteFile(path, []byte("log_level = \"warn\"\nlog_levl = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "check configuration " + path + `: line 2: unknown key "log_levl"; did you mean "log_level"?`
	if _, err := Load(path); block.KindOf(err) != block.Invalid || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	if err := os.WriteFile(path, []byte("log_level = \"warn\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.LogLevel != "warn" {
		t.Errorf("%+v, %v", c, err)
	}
}

const db = "[[export]]\nname = \"db\"\nurl = \"/db.raw\"\n"

// refused are files, and what has to be said about them.
var refused = []struct{ text, want string }{
	// not known
	{"\n\nread_onyl = 1", `line 3: unknown key "read_onyl"`},
	{db + "read_onyl = true", `line 4: unknown key "read_onyl"; did you mean "read_only"?`},
	{db + "read-only = true", `line 4: unknown key "read-only"; did you mean "read_only"?`},
	{db + "Read_Only = true", `line 4: unknown key "Read_Only"; did you mean "read_only"?`},
	{db + "read_iops = 5", `line 4: unknown key "read_iops" here; it belongs to [export.throttle]`},
	{db + "metrics = \"\"", `line 4: unknown key "metrics" here; it belongs above the first [table] of the file`},
	{db + "[export.throtle]", `line 4: unknown key "throtle"; did you mean "throttle"?`},
	{db + "[export.throttle]\nrate = 1", `line 5: unknown key "rate"`},
	{db + "throttle.rate.x = 1", `line 4: unknown key "rate"`},
	{db + "throttle = { burst = \"1s\", rate = 1 }", `line 4: unknown key "rate"`},
	{"[exports]\nname = \"x\"", `line 1: unknown key "exports"; did you mean "export"?`},
	{"\"a\\nb\" = 1", `line 1: unknown key "a\nb"`},
	// of another type
	{db + "read_only = 1", `line 4: "export.read_only" takes true or false`},
	{db + db[:11] + "name = 1", `line 5: "export.name" takes text in quotes ("…")`},
	{db + "[export.on_error]\nlimit = 30", `line 5: "export.on_error.limit" takes a duration in quotes ("500ms", "30s", "5m")`},
	{db + "throttle.read_bytes = 1.5", `line 4: "export.throttle.read_bytes" takes a number of bytes or a size in quotes ("10M")`},
	{db + "throttle = 5", `line 4: "export.throttle" takes a table, [export.throttle]`},
	{"nbd = \"unix:/x\"", `line 1: "nbd" takes a list (["…", "…"])`},
	{"nbd = [\n\"unix:/x\",\n5]", `line 1: "nbd" takes a list (["…", "…"])`},
	{"max_connections = \"5\"", `line 1: "max_connections" takes a whole number`},
	{"fuse_options.mode = 640", `line 1: "fuse_options.mode" takes a file's mode in quotes ("0640")`},
	{"export = 5", `line 1: "export" takes tables, [[export]]`},
	{"export = [5]", `line 1: "export" takes tables, [[export]]`},
	{"export.name = \"a\"", `line 1: "export" takes tables, [[export]]`},
	{"[export]", `line 1: "export" may be there more than once: write [[export]]`},
	{"[[tls]]", `line 1: "tls" is one table: write [tls]`},
	{db + "[[export.throttle]]", `line 4: "export.throttle" is one table: write [export.throttle]`},
	{"[metrics]", `line 1: "metrics" takes text in quotes ("…") and is no table`},
	{"[metrics.x]", `line 1: "metrics" takes text in quotes ("…") and is no table`},
	{"[export.throttle]\nburst = \"1s\"", `line 1: there is no [[export]] above that this could belong to`},
	// not well formed, or given twice
	{"a b\n", `line 1: `},
	{"fuse = \"/x\"\nstate = \"/y", `line 2: `},
	{"fuse = \"/x\"\n\nfuse = \"/y\"", `line 3: `},
	{"[tls]\n[tls]", `line 2: `},
	{db + "name = \"db\"", `line 4: `},
	{"max_connections = 99999999999999999999", `line 1: `},
	// values
	{db + "\n" + db, `line 6: export "db" is there already on line 2`},
	{"api = [\n\"unix:/a\",\n\"unix:b\"]", `line 3: api: "unix:b": the path has to be absolute`},
	{"nbd = [\"tcp:host\"]", `line 1: nbd: "tcp:host": not tcp:HOST:PORT`},
	{"api = [\"unix:/a\"]\nnbd = [\"unix:/b\",\n \"unix:/x/../a\"]", `line 3: nbd: "unix:/x/../a" is given already on line 1`},
	{"nbd=[\"unix:/b\"]\n" + db + "nbd = [\"unix:/b\"]", `line 5: export "db": nbd: "unix:/b" is given already on line 1`},
	{"api = [\"tcp:127.0.0.1:1\"]", `line 1: api: "tcp:127.0.0.1:1" needs [api_tls]`},
	{"fuse = \"srv\"", `line 1: fuse: "srv": the path has to be absolute`},
	{"state = \"srv\"", `line 1: state: "srv": the path has to be absolute`},
	{"metrics = \"9808\"", `line 1: metrics: "9808" is not HOST:PORT`},
	{"metrics = \"x:http\"", `line 1: metrics: "http" is not a port`},
	{"log_level = \"loud\"", `line 1: log_level: "loud" is none of debug, info, warn and error`},
	{"max_connections = -1", `line 1: max_connections is negative`},
	{"busy_poll = \"2ms\"", `line 1: busy_poll: 2ms is more than 1ms`},
	{"shutdown_timeout = \"-1s\"", `line 1: shutdown_timeout is negative`},
	{"slow_request = \"1 hour\"", `line 1: slow_request: "1 hour" is not a duration`},
	{"[tls]\nmode = \"on\"", `line 2: tls.mode: "on" is none of off, optional and required`},
	{"[tls]\ncert = \"/c\"", `line 1: tls needs both cert and key`},
	{"[tls]\nmode = \"required\"", `line 1: tls needs both cert and key`},
	{"[tls]\nmode = \"off\"\nkey = \"/k\"", `line 2: tls.mode "off" goes with no other key of [tls]`},
	{"[tls]\ncert = \"/c\"\nkey = \"/k\"\nallow = [\"h\"]", `line 4: tls.allow needs tls.ca`},
	{"tls.cert = \"c\"", `line 1: tls.cert: "c": the path has to be absolute`},
	{"[api_tls]\ncert = \"/c\"\nkey = \"/k\"", `line 1: api_tls needs cert, key and ca`},
	{"fuse_options.mode = \"0888\"", `line 1: fuse_options.mode: "0888" is not a file's mode`},
	{"[fuse_options]\n\nuid = -1", `line 3: fuse_options.uid: -1 is no user's number`},
	{"[fuse_options]\ngid = 4294967295", `line 2: fuse_options.gid: 4294967295 is no group's number`},
	{"[[export]]\nurl = \"/x\"", `line 1: export "": the name is empty`},
	{"[[export]]\nname = \"x\"", `line 1: export "x": url is missing`},
	{"export = [{name = \"a\", url = \"/a\"},\n{url = \"/b\"}]", `line 2: export "": the name is empty`},
	{db + "url2 = 1", `line 4: unknown key "url2"; did you mean "url"?`},
	{"[[export]]\nname=\"x\"\nurl = \"x.raw\"", `line 3: export "x": url: "x.raw" is neither an absolute path nor a URL`},
	{db + "format = \"rwa\"", `line 4: export "db": format: "rwa" is not known (raw`},
	{db + "[export.throttle]\nread_bytes = \"10X\"", `line 5: export.throttle.read_bytes: "10X" is not a size`},
	{db + "[export.throttle]\nread_bytes = -1", `line 5: export "db": throttle.read_bytes is negative`},
	{db + "on_error.policy = \"wait\"", `line 4: export "db": on_error.policy "wait" is none of`},
	{db + "allow = [\"h\"]", `line 4: export "db": allow needs tls.ca`},
	{db + "faults = [\"read:error=io\"]", `line 4: export "db": faults need allow_faults = true`},
}

func TestRefused(t *testing.T) {
	for _, c := range refused {
		_, err := Parse("/etc/x.toml", []byte(c.text))
		if block.KindOf(err) != block.Invalid || !strings.HasPrefix(err.Error(), "check configuration /etc/x.toml: "+c.want) {
			t.Errorf("%q:\n  %v\n  want … %s", c.text, err, c.want)
		} else if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%q: more than one line: %q", c.text, err)
		}
	}
}

// TestProblems: all that is wrong is told, in the order of the lines.
func TestProblems(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.toml")
	look := func(text string) []Problem {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := Problems(path)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	got := look("fuse = \"srv\"\nlog_levl = \"info\"\n[tls]\ncert = \"" + dir + "/none.pem\"\nkey = \"/k\"\n[nonsense]\nx = 1\n" +
		db + "allow = [\"h\"]\n" + db + db + "[[export]]\nname = \"e\"\n")
	want := []Problem{
		{1, `fuse: "srv": the path has to be absolute`},
		{2, `unknown key "log_levl"; did you mean "log_level"?`},
		{4, "tls: read certificate " + dir + "/none.pem: no such file or directory"},
		{6, `unknown key "nonsense"`},
		{11, `export "db": allow needs tls.ca, which proves the clients' names`},
		{16, `export "db" is there already on line 13`},
		{18, `export "e": url is missing`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := look(whole[:strings.Index(whole, "tls =")]); len(got) != 1 || got[0].Line != 2 {
		t.Errorf("TCP without certificates: %+v", got)
	}
	if got := look(db); len(got) > 0 {
		t.Errorf("nothing is wrong: %+v", got)
	}
	for _, c := range refused { // what Parse says comes first, or with more
		_, err := Parse("x", []byte(c.text))
		found := false
		for _, p := range look(c.text) {
			text := p.Text
			if p.Line > 0 {
				text = fmt.Sprintf("line %d: %s", p.Line, text)
			}
			found = found || err.Error() == "check configuration x: "+text
		}
		if !found {
			t.Errorf("%q: %+v has not %v", c.text, look(c.text), err)
		}
	}
	if _, err := Problems(filepath.Join(dir, "none")); block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
}

func TestPasswordsAreNotRepeated(t *testing.T) {
	for _, url := range []string{"nbd://user:s3cret@host/x#y", "nbd://user:s3cret@ho st/x"} {
		_, err := Parse("x", []byte("[[export]]\nname = \"a\"\nurl = \""+url+"\"\n"))
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := Parse("x", make([]byte, maxSize+1)); block.KindOf(err) != block.Invalid {
		t.Error(err)
	}
	text := "log_level = \"" + strings.Repeat("x\x1b", 1<<20) + "\""
	if _, err := Parse("x", []byte(text)); err == nil || len(err.Error()) > 500 {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
	if _, err := Parse("x", []byte("log_level = \""+strings.Repeat("y", 1<<20)+"\"")); err == nil || len(err.Error()) > 500 {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
}

// TestManyUnknownKeys: the first one is told, and the others are not compared with
// each other, which would take minutes.
func TestManyUnknownKeys(t *testing.T) {
	var b strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&b, "k%d = 1\n", i)
	}
	start := time.Now()
	if _, err := Parse("x", []byte(b.String())); err == nil || err.Error() != `check configuration x: line 1: unknown key "k0"` {
		t.Error(err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

// TestCheckAfterFlags: what flags put in is checked like what the file says, but
// has no line.
func TestCheckAfterFlags(t *testing.T) {
	c := Default()
	c.NBD = []string{"unix:/a", "unix:/a"}
	if err := c.Check(); block.KindOf(err) != block.Invalid || err.Error() != `check configuration: nbd: "unix:/a" is given already` {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	example, err := os.ReadFile("../../dist/sluice.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, s := range []string{"export = [{}, {name=\"a\"}]", "[[export]]\n[export.throttle]\n[[export]]", "a.b.c=1", "[a]\n[[a.b]]\n[a.b.c]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("x", data)
		switch {
		case err == nil:
			if err := c.Check(); err != nil {
				t.Errorf("what Parse took is refused: %v", err)
			}
			if keys := NeedRestart(c, c); keys != nil {
				t.Errorf("differs from itself: %v", keys)
			}
		case block.KindOf(err) != block.Invalid || strings.ContainsAny(err.Error(), "\n\r\x1b") || len(err.Error()) > 500:
			t.Errorf("%q", err)
		}
	})
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckConfig: a line for each problem, and nothing is touched.
func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.toml")
	check := func(text string, args ...string) outcome {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return sluice(t, dir, append([]string{"daemon", "--check-config", "--config", file}, args...)...)
	}
	good := "state = \"" + dir + "/state\"\napi = [\"unix:" + dir + "/api\"]\nnbd = []\nfuse = \"" + dir + "/none\"\n[[export]]\nname = \"a\"\nurl = \"/none.img\"\n"
	if o := check(good); o.code != exitOK || o.stdout != file+": nothing is wrong\n" || o.stderr != "" {
		t.Errorf("%+v", o)
	}
	bad := good + "read_onyl = true\n[[export]]\nname = \"a\"\nurl = \"/b\"\n"
	o := check(bad)
	want := file + ":8: unknown key \"read_onyl\"; did you mean \"read_only\"?\n" + file + ":10: export \"a\" is there already on line 6\n"
	if o.code != exitFailure || o.stdout != want || o.stderr != "sluice: check configuration "+file+": 2 problems\n" {
		t.Errorf("%+v", o)
	}
	if o := check(bad, "--json"); o.code != exitFailure || !strings.Contains(o.stdout, `"line": 8`) || !strings.Contains(o.stdout, `"file": "`+file+`"`) {
		t.Errorf("%+v", o)
	}
	if o := check("fuse = [\n", "--json"); o.code != exitFailure || strings.Count(o.stdout, `"line"`) != 1 {
		t.Errorf("%+v", o)
	}
	if o := check(good, "--nbd", "here"); o.code != exitUsage || o.stdout != "" || !strings.Contains(o.stderr, "neither unix:PATH nor tcp:HOST:PORT") {
		t.Errorf("a flag: %+v", o)
	}
	if o := sluice(t, dir, "daemon", "--check-config", "--config", dir+"/none.toml"); o.code != exitFailure || !strings.Contains(o.stderr, "none.toml: no such file or directory") {
		t.Errorf("no file: %+v", o)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("something was touched: %v, %v", entries, err)
	}
}

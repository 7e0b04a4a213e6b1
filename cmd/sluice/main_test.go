package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outcome is what a command line did.
type outcome struct {
	code           int
	stdout, stderr string
}

// sluice runs a command line in a folder.
func sluice(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	t.Chdir(dir)
	var stdout, stderr bytes.Buffer
	code := run(context.WithoutCancel(t.Context()), args, &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

// must runs a command line that has to work without a word on stderr.
func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	o := sluice(t, dir, args...)
	if o.code != exitOK || o.stderr != "" {
		t.Fatalf("sluice %s: exit code %d, %q", strings.Join(args, " "), o.code, o.stderr)
	}
	return o.stdout
}

// changing is what differs from run to run.
var changing = regexp.MustCompile(`("(?:modified|seconds|allocated)": )("[^"]*"|[0-9.e-]+)`)

// golden compares output with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = changing.ReplaceAllString(got, `$1"…"`)
	path := filepath.Join(home, "testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s (%v): got\n%s\nwant\n%s", name, err, got, want)
	}
}

// home is this folder; tests go elsewhere.
var home = func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return dir
}()

//go:build interop

package fsxtest

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/internal/lab"
)

// serveFUSE serves an image as a file and returns the file's path.
func serveFUSE(t *testing.T, image string, flags ...string) (server *lab.Proc, path string) {
	t.Helper()
	args := append([]string{"serve", image, "--fuse", t.TempDir()}, flags...)
	server = lab.Start(t, lab.Sluice(t), args...)
	_, path, _ = strings.Cut(server.Expect("ready fuse "), "ready fuse ")
	return server, path
}

// TestFUSEFile: as many operations as anybody has asked for on our file, through us and past us.
func TestFUSEFile(t *testing.T) {
	for name, flags := range map[string][]string{"served": nil, "passthrough": {"--fuse-passthrough"}} {
		t.Run(name, func(t *testing.T) {
			image, plain := fresh(t, 16<<20)
			server, path := serveFUSE(t, image, flags...)
			begin := time.Now()
			Run(t, Config{Path: path, Plain: plain, Seed: 4})
			t.Logf("100 000 operations in %.1f s", time.Since(begin).Seconds())
			if err := server.Stop(); err != nil {
				t.Errorf("the server's end: %v", err)
			}
			same(t, image, plain)
		})
	}
}

// same fails unless two files hold the same bytes.
func same(t *testing.T, a, b string) {
	t.Helper()
	got, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s and %s differ", a, b)
	}
}

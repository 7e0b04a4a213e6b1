//go:build interop

package endpoint

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/lab"
)

// TestUnits installs the units below a folder and has systemd read them there.
func TestUnits(t *testing.T) {
	lab.Need(t, "systemd-analyze", "make", "kill")
	top := t.TempDir()
	lab.Run(t, "make", "-C", "../..", "install-daemon", "DESTDIR="+top, "PREFIX=/opt/sluice", "CONFDIR=/etc/other")
	units := filepath.Join(top, "opt/sluice/lib/systemd/system")
	service, err := os.ReadFile(filepath.Join(units, "sluice.service"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(service), "\nExecStart=/opt/sluice/bin/sluice daemon --config /etc/other/sluice.toml\n") {
		t.Errorf("the paths of the installation are not in it:\n%s", service)
	}
	conf := filepath.Join(top, "etc/other/sluice.toml")
	if st, err := os.Stat(conf); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	// A program that is there, in place of the one that is not installed.
	text := strings.ReplaceAll(string(service), "/opt/sluice/bin/sluice", "/bin/true")
	if said, err := verified(t, units, text); err != nil || strings.Contains(said, "sluice") {
		t.Errorf("%v: %s", err, said)
	}
	if said, err := verified(t, units, text+"\n[Service]\nWatchDog=1s\n"); err == nil || !strings.Contains(said, "'WatchDog'") {
		t.Errorf("a key that is none was not noticed: %v: %s", err, said)
	}
}

// verified gives what systemd says about the units with this text as service.
func verified(t *testing.T, units, service string) (string, error) {
	t.Helper()
	args := []string{"verify", "--man=no", "--recursive-errors=no"}
	for _, name := range []string{"sluice.service", "sluice-api.socket", "sluice-nbd.socket"} {
		args = append(args, filepath.Join(units, name))
	}
	if err := os.WriteFile(filepath.Join(units, "sluice.service"), []byte(service), 0o644); err != nil {
		t.Fatal(err)
	}
	p := lab.Start(t, "systemd-analyze", args...)
	err := p.Wait()
	return p.Output(), err
}

// TestInstallKeepsTheConfiguration installs twice.
func TestInstallKeepsTheConfiguration(t *testing.T) {
	lab.Need(t, "make")
	top := t.TempDir()
	install := func() { lab.Run(t, "make", "-C", "../..", "install-daemon", "DESTDIR="+top) }
	install()
	conf := filepath.Join(top, "etc/sluice/sluice.toml")
	if err := os.WriteFile(conf, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	install()
	if text, err := os.ReadFile(conf); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestSocketsOfSystemd has systemd's own program hand sockets over.
func TestSocketsOfSystemd(t *testing.T) {
	lab.Need(t, "systemd-socket-activate")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	api, nbd := lab.Socket(t), lab.Socket(t)
	p := lab.Start(t, "systemd-socket-activate", "-l", api, "-l", nbd, "--fdname=api:nbd",
		"-E", "ENDPOINT_TEST_SERVICE="+t.TempDir(), exe)
	p.Expect("Listening on " + nbd)
	for path, want := range map[string]string{api: "api", nbd: "nbd"} {
		if got := answer(t, &net.UnixAddr{Name: path, Net: "unix"}); got != want {
			t.Errorf("%s is served as %s", want, got)
		}
	}
}

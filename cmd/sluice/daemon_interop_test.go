//go:build interop

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/gateway"
	"sluice/gateway/apiclient"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// daemonAt is a daemon in a folder of its own.
type daemonAt struct {
	t    *testing.T
	dir  string
	args []string
	proc *lab.Proc
}

// newDaemonAt starts a daemon with more arguments.
func newDaemonAt(t *testing.T, args ...string) *daemonAt {
	t.Helper()
	d := &daemonAt{t: t, dir: filepath.Dir(lab.Socket(t))}
	d.args = append([]string{"daemon", "--state", d.at("state"), "--api", "unix:" + d.at("api"), "--nbd", "unix:" + d.at("nbd"), "--metrics", "none"}, args...)
	d.start()
	return d
}

func (d *daemonAt) at(name string) string { return filepath.Join(d.dir, name) }

func (d *daemonAt) start() {
	d.t.Helper()
	d.proc = lab.Start(d.t, lab.Sluice(d.t), d.args...)
	d.proc.Expect("ready nbd")
}

// client is a client of its API.
func (d *daemonAt) client() *apiclient.Client {
	d.t.Helper()
	c, err := apiclient.New(apiclient.Config{Address: "unix:" + d.at("api")})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

// add adds an export of a new image of so many MiB, and gives its NBD URI.
func (d *daemonAt) add(name string, mib int64, settings spec.Settings) string {
	d.t.Helper()
	path := sparseImage(d.t, name, mib)
	st, err := d.client().Add(d.t.Context(), spec.Spec{Name: name, URL: path, Settings: settings})
	if err != nil {
		d.t.Fatal(err)
	}
	return st.URIs[0]
}

func sparseImage(t *testing.T, name string, mib int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, mib<<20)); err != nil {
		t.Fatal(err)
	}
	return path
}

// awaitState waits until an export is in a state.
func (d *daemonAt) awaitState(name string, state gateway.State) gateway.Status {
	d.t.Helper()
	return d.awaitStateAfter(name, state, gateway.Status{})
}

// awaitStateAfter waits until an export is in another state than it was: each event
// is a reason to look.
func (d *daemonAt) awaitStateAfter(name string, state gateway.State, was gateway.Status) gateway.Status {
	d.t.Helper()
	c := d.client()
	ctx, done := context.WithTimeout(d.t.Context(), time.Minute)
	defer done()
	for _, err := range c.Events(ctx, 0) {
		if err != nil {
			d.t.Fatal(err)
		}
		if st, err := c.Show(ctx, name); err == nil && st.State == state && st.State != was.State {
			return st
		}
	}
	d.t.Fatalf("%s is never %s", name, state)
	return gateway.Status{}
}

// TestDaemonRefuses: what cannot be is one clear line, and nothing is left of the
// attempt.
func TestDaemonRefuses(t *testing.T) {
	dir := filepath.Dir(lab.Socket(t))
	at := func(name string) string { return filepath.Join(dir, name) }
	port := traps(t, at)
	good := []string{"--state", at("state"), "--api", "unix:" + at("api"), "--nbd", "unix:" + at("nbd"), "--fuse", at("empty"), "--metrics", "none"}
	for _, c := range []struct {
		name   string
		config string
		args   []string
		code   int
		want   string
	}{
		{"malformed", "api = [\n\"unix:/x\"", nil, 1, "line 2"},
		{"unknown key", "\n[[export]]\nname = \"a\"\nurl = \"/a\"\nread_onyl = true", nil, 1, `line 5: unknown key "read_onyl"; did you mean "read_only"?`},
		{"duplicate name", "[[export]]\nname = \"a\"\nurl = \"/a\"\n[[export]]\nname = \"a\"\nurl = \"/b\"", nil, 1, `"a" is there already on line 2`},
		{"no such file", "-", []string{"--config", at("none.toml")}, 1, "none.toml: no such file"},
		{"no folder for a socket", "", []string{"--nbd", "unix:" + at("none/s")}, 1, "none/s: no such file"},
		{"busy socket", "", []string{"--nbd", "unix:" + at("busy")}, 1, "busy: another process listens there"},
		{"busy API", "", []string{"--api", "unix:" + at("busy")}, 1, "busy: another process listens there"},
		{"no socket", "", []string{"--nbd", "unix:" + at("nosocket")}, 1, "nosocket: the file is there and is not a socket"},
		{"no address", "", []string{"--nbd", "here"}, 2, "neither unix:PATH nor tcp:HOST:PORT"},
		{"API in the open", "", []string{"--api", "tcp:127.0.0.1:0"}, 2, "needs [api_tls]"},
		{"busy port", "", []string{"--metrics", port.Addr().String()}, 1, "address already in use"},
		{"full folder", "", []string{"--fuse", at("full")}, 1, "the folder is not empty (file is in it)"},
		{"no folder", "", []string{"--fuse", at("none")}, 1, "none: no such file"},
		{"dead mount", "", []string{"--fuse", at("dead")}, 1, "unmount it first: umount -l " + at("dead")},
		{"taken state", "", []string{"--state", at("taken")}, 1, "taken"},
		{"argument", "", []string{"disk.img"}, 2, "one argument too many"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"daemon"}, good...)
			if c.config != "-" {
				if err := os.WriteFile(at("c.toml"), []byte(c.config), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--config", at("c.toml"))
			}
			p := lab.Start(t, lab.Sluice(t), override(args, c.args)...)
			_ = p.Wait()
			lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
			if p.ExitCode() != c.code || len(lines) != 1 || !strings.HasPrefix(lines[0], "sluice: ") || !strings.Contains(lines[0], c.want) {
				t.Errorf("exit code %d (want %d), %q (want %q)", p.ExitCode(), c.code, lines, c.want)
			}
			for _, left := range []string{"api", "nbd"} {
				if _, err := os.Lstat(at(left)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left behind (%v)", left, err)
				}
			}
			if names, err := os.ReadDir(at("empty")); err != nil || len(names) > 0 || isMounted(at("empty")) {
				t.Errorf("something is mounted: %v, %v", names, err)
			}
		})
	}
	p := lab.Start(t, lab.Sluice(t), append([]string{"daemon"}, good...)...)
	p.Expect("ready fuse") // nobody else has the state
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

// traps lays out what a daemon must not take, and gives a TCP port that is taken.
func traps(t *testing.T, at func(string) string) net.Listener {
	t.Helper()
	for _, folder := range []string{"empty", "full", "dead"} {
		if err := os.Mkdir(at(folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(at("full/file"), "")
	write(at("nosocket"), "")
	deadMount(t, at("dead"))
	busy, err := net.Listen("unix", at("busy"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = port.Close() })
	other := lab.Start(t, lab.Sluice(t), "daemon", "--state", at("taken"), "--api", "unix:"+at("o1"), "--nbd", "unix:"+at("o2"), "--metrics", "none")
	other.Expect("ready nbd")
	return port
}

// override puts arguments in the place of those with the same flag.
func override(args, by []string) []string {
	if len(by) > 1 {
		for i, arg := range args {
			if arg == by[0] {
				args[i+1] = by[1]
				return args
			}
		}
	}
	return append(args, by...)
}

func isMounted(dir string) bool {
	var st, parent unix.Stat_t
	return unix.Stat(dir, &st) == nil && unix.Stat(filepath.Dir(dir), &parent) == nil && st.Dev != parent.Dev
}

// deadMount mounts a FUSE file system of somebody else, who is gone.
func deadMount(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("other", dir, "fuse.other", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
}

// TestDaemonComesBack: what was added is there after kill -9, with its contents, its
// own socket and its file, without anybody who keeps anything.
func TestDaemonComesBack(t *testing.T) {
	lab.Need(t, "nbdinfo", "qemu-io", "qemu-img")
	mount := t.TempDir()
	d := newDaemonAt(t, "--fuse", mount)
	image := sparseImage(t, "a", 8)
	own := "nbd+unix:///?socket=" + d.at("own")
	lab.Run(t, lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "add", "a", image, "--nbd", "unix:"+d.at("own"), "--description", "the first")
	d.add("b", 1, spec.Settings{})
	lab.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 1M 1M", own)
	d.proc.Kill9()
	d.start()
	if text := lab.Run(t, "nbdinfo", "--list", "nbd+unix:///?socket="+d.at("nbd")); !strings.Contains(text, `export="a"`) || !strings.Contains(text, "the first") || !strings.Contains(text, `export="b"`) {
		t.Errorf("nbdinfo: %s", text)
	}
	lab.Run(t, "qemu-io", "-f", "raw", "-r", "-c", "read -P 7 1M 1M", own)
	lab.Run(t, "qemu-io", "-f", "raw", "-r", "-c", "read -P 7 1M 1M", filepath.Join(mount, "a"))
	lab.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", filepath.Join(mount, "a"), "nbd+unix:///a?socket="+d.at("nbd"))
	if err := d.proc.Stop(); err != nil {
		t.Error(err)
	}
	if isMounted(mount) {
		t.Error("still mounted")
	}
	lab.Run(t, "qemu-io", "-f", "raw", "-r", "-c", "read -P 7 1M 1M", image)
}

// TestDaemonReloads: SIGHUP brings exports of the configuration, takes them away and
// changes them; clients of those that stay do not notice.
func TestDaemonReloads(t *testing.T) {
	lab.Need(t, "fio")
	dir := t.TempDir()
	file := filepath.Join(dir, "c.toml")
	image := sparseImage(t, "a", 64)
	write := func(exports string) {
		if err := os.WriteFile(file, []byte("log_level = \"info\"\n"+exports), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entry := func(name, url, more string) string {
		return fmt.Sprintf("[[export]]\nname = %q\nurl = %q\n%s\n", name, url, more)
	}
	write(entry("a", image, "") + entry("b", "mem://1M", ""))
	d := newDaemonAt(t, "--config", file)
	c := d.client()
	fio := lab.StartFio(t, lab.FioConfig{URI: "nbd+unix:///a?socket=" + d.at("nbd"), Runtime: 3 * time.Second})
	write(entry("a", image, "throttle.write_iops = 2000") + entry("c", "mem://2M", ""))
	d.proc.Signal(syscall.SIGHUP)
	for ev, err := range c.Events(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == gateway.Reloaded {
			break
		}
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Spec.Throttle.WriteIOPS != 2000 || list[1].Spec.Name != "c" || list[1].State != gateway.Serving {
		t.Errorf("after the reload: %+v, %v", list, err)
	}
	write("nonsense")
	d.proc.Signal(syscall.SIGHUP)
	d.proc.Expect("the configuration is not right, and everything stays as it was")
	if after, err := c.List(t.Context()); err != nil || len(after) != 2 {
		t.Errorf("after a bad file: %+v, %v", after, err)
	}
	fio.Finish()
	if err := d.proc.Stop(); err != nil {
		t.Error(err)
	}
}

// TestDaemonStopsWhileHeld: a storage that is gone does not keep the daemon from
// ending in time, and is told of.
func TestDaemonStopsWhileHeld(t *testing.T) {
	lab.Need(t, "qemu-io")
	dir := t.TempDir()
	file := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(file, []byte("shutdown_timeout = \"1s\"\nallow_faults = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemonAt(t, "--config", file)
	uri := d.add("a", 1, spec.Settings{Faults: []string{"any:error=transient"}})
	io := lab.Start(t, "qemu-io", "-f", "raw", "-c", "write 0 4k", uri)
	st := d.awaitState("a", gateway.Held)
	if st.Error == "" || st.HeldNow < 1 {
		t.Errorf("%+v", st)
	}
	begin := time.Now()
	d.proc.Signal(syscall.SIGTERM)
	if err := d.proc.Wait(); err == nil || !strings.Contains(d.proc.Output(), "flush a") {
		t.Errorf("the end: %v, %s", err, d.proc.Output())
	}
	if took := time.Since(begin); took > 20*time.Second { // without the setting it is 30
		t.Errorf("it took %v", took)
	}
	io.Kill9()
}

// TestDaemonOfAThousand: added through the API, listed, and back after a restart.
func TestDaemonOfAThousand(t *testing.T) {
	d := newDaemonAt(t)
	c := d.client()
	dir := t.TempDir()
	begin := time.Now()
	for n := range 1000 {
		path := filepath.Join(dir, fmt.Sprintf("%d.img", n))
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Add(t.Context(), spec.Spec{Name: fmt.Sprintf("disk-%d", n), URL: path}); err != nil {
			t.Fatal(err)
		}
	}
	added := time.Since(begin)
	listed := time.Hour
	for range 5 {
		begin = time.Now()
		list, err := c.List(t.Context())
		if err != nil || len(list) != 1000 {
			t.Fatalf("%d exports, %v", len(list), err)
		}
		listed = min(listed, time.Since(begin))
	}
	d.proc.Kill9()
	begin = time.Now()
	d.start()
	back := time.Since(begin)
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1000 {
		t.Fatalf("after the restart: %d exports, %v", len(list), err)
	}
	for _, st := range list {
		if st.State != gateway.Serving {
			t.Errorf("%+v", st)
		}
	}
	t.Logf("1000 exports added in %v, listed in %v, back %v after the start", added, listed, back)
	lab.Goal(t, "adding 1000 exports", added, 10*time.Second, 2*time.Minute)
	lab.Goal(t, "the quickest list", listed, 100*time.Millisecond, 2*time.Second)
	if text, err := exec.Command(lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "list").Output(); err != nil || strings.Count(string(text), "\n") != 1001 {
		t.Errorf("list: %v", err)
	}
}

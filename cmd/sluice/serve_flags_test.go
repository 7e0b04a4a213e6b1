package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/backends"
	"sluice/block"
	"sluice/nbd"
)

// What the flags of serve do, seen from outside: each effect is there with the
// flag and missing without.

// server is a serve that runs in this process.
type server struct {
	t      *testing.T
	line   string // what it printed when it was ready
	cancel context.CancelFunc
	code   chan int
	stderr bytes.Buffer // to be read when it has ended
}

func serving(t *testing.T, args ...string) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &server{t: t, cancel: cancel, code: make(chan int, 1)}
	stdout, w := io.Pipe()
	go func() {
		code := run(ctx, append([]string{"serve"}, args...), w, &s.stderr)
		_ = w.Close()
		s.code <- code
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		cancel()
		t.Fatalf("serve %s: exit code %d, %s", strings.Join(args, " "), <-s.code, &s.stderr)
	}
	s.line = line
	return s
}

// end stops the server and gives what it logged.
func (s *server) end() string {
	s.t.Helper()
	s.cancel()
	if code := <-s.code; code != exitOK {
		s.t.Errorf("exit code %d", code)
	}
	return s.stderr.String()
}

// isDirect reports whether this process has a file open with O_DIRECT whose path
// begins so.
func isDirect(path string) bool {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || !strings.HasPrefix(to, path) {
			continue
		}
		text, _ := os.ReadFile("/proc/self/fdinfo/" + filepath.Base(fd))
		var pos, flags int64
		if _, err := fmt.Sscanf(string(text), "pos:\t%d\nflags:\t%o", &pos, &flags); err == nil && flags&unix.O_DIRECT != 0 {
			return true
		}
	}
	return false
}

// opens reports whether a second user of the image is let in.
func opens(t *testing.T, path string, opts block.OpenOptions) bool {
	dev, err := backends.Open(t.Context(), path, opts)
	return err == nil && dev.Close() == nil
}

func TestServeFlags(t *testing.T) {
	dir := t.TempDir()
	disk(t, dir, "disk.img")
	path, socket := filepath.Join(dir, "disk.img"), filepath.Join(dir, "s")
	uri := "nbd+unix:///?socket=" + socket
	quiet := nbd.ClientConfig{Logger: slog.New(slog.DiscardHandler)}
	listed := func() nbd.ExportInfo {
		list, err := nbd.List(t.Context(), uri, quiet)
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		return list[0]
	}
	for flag, has := range map[string]func(*server) bool{
		"--share":                func(*server) bool { return opens(t, path, block.OpenOptions{Share: true}) },
		"--unlocked":             func(*server) bool { return opens(t, path, block.OpenOptions{}) },
		"--direct":               func(*server) bool { return isDirect(path) },
		"--read-only":            func(*server) bool { return listed().ReadOnly },
		"--description=the disk": func(*server) bool { return listed().Description == "the disk" },
		"--json":                 func(s *server) bool { return s.line == `{"ready":"`+uri+"\"}\n" },
		"--max-connections=1":    func(*server) bool { return isOnlyOne(t, uri, quiet) },
		"--log-json":             func(s *server) bool { return isJSON(s.end()) },
	} {
		for _, given := range []bool{true, false} {
			args := []string{path, "--nbd", "unix:" + socket, "--metrics", "127.0.0.1:0"} // which logs a line
			if given {
				args = append(args, flag)
			}
			s := serving(t, args...)
			if has(s) != given {
				t.Errorf("%s given: %t, its effect: %t", flag, given, !given)
			}
			if flag != "--log-json" {
				s.end()
			}
		}
	}
}

// isOnlyOne reports whether a second client is turned away while there is one.
func isOnlyOne(t *testing.T, uri string, cfg nbd.ClientConfig) bool {
	first, err := nbd.Dial(t.Context(), uri, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	second, err := nbd.Dial(t.Context(), uri, cfg)
	if err != nil {
		return true
	}
	_ = second.Close()
	return false
}

// isJSON reports whether each line of a log, which is not empty, is an object.
func isJSON(log string) bool {
	for line := range strings.Lines(log) {
		var v struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &v) != nil || v.Level == "" || v.Msg == "" {
			return false
		}
	}
	return log != ""
}

// TestServeConfig: what cannot be seen from outside gets to the server.
func TestServeConfig(t *testing.T) {
	for _, c := range []struct {
		flags             []string
		connections       int
		busy, drain       time.Duration
		description, name string
	}{
		{nil, 0, 20 * time.Microsecond, 30 * time.Second, "", ""},
		{[]string{"--busy-poll", "0"}, 0, -1, 30 * time.Second, "", ""},
		{
			[]string{"--busy-poll", "50us", "--max-connections", "7", "--shutdown-timeout", "3s", "--description", "d", "--name", "n"},
			7, 50 * time.Microsecond, 3 * time.Second, "d", "n",
		},
	} {
		f := &serveFlags{globals: &globals{}}
		cmd := f.command()
		if err := cmd.ParseFlags(c.flags); err != nil {
			t.Fatal(err)
		}
		cfg, err := f.config(cmd, "disk.img")
		if err != nil || cfg.MaxConnections != c.connections || cfg.BusyPoll != c.busy || cfg.DrainTimeout != c.drain ||
			cfg.Description != c.description || cfg.Name != c.name || cfg.Object != "disk.img" {
			t.Errorf("%v: %+v", c.flags, cfg)
		}
	}
}

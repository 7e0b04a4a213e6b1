//go:build interop

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/gateway/apiclient"
	"sluice/internal/lab"
)

// typist has a file open and writes to it, a block after the other. It makes no copy
// of its descriptor, as a shell would: to close one asks the server.
type typist struct {
	t     *testing.T
	proc  *lab.Proc
	in    io.WriteCloser
	image string // where it arrives
	n     int    // blocks written, of 4 KiB with their number from 1 on
}

func newTypist(t *testing.T, file, image string) *typist {
	t.Helper()
	cmd := exec.Command("dd", "of="+file, "bs=4k", "iflag=fullblock", "conv=notrunc", "status=none")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	w := &typist{t: t, proc: lab.StartCmd(t, cmd), in: in, image: image}
	w.write() // it is open
	return w
}

// begin gives it the next block.
func (w *typist) begin() {
	w.t.Helper()
	w.n++
	if _, err := w.in.Write(w.block()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *typist) block() []byte { return bytes.Repeat([]byte{byte(w.n)}, 4096) }

// write returns when the next block is in the image.
func (w *typist) write() {
	w.t.Helper()
	w.begin()
	w.done()
}

// done waits for the block that was begun.
func (w *typist) done() {
	w.t.Helper()
	w.proc.Until("the block was written", func() bool {
		data, err := os.ReadFile(w.image)
		return err == nil && bytes.Equal(data[4096*(w.n-1):][:4096], w.block())
	})
}

// same fails unless a file begins with all that was written.
func (w *typist) same(file string) {
	w.t.Helper()
	got := lab.Run(w.t, "head", "-c", fmt.Sprint(4096*w.n), file)
	for i := range w.n {
		if block := got[4096*i:][:4096]; block != strings.Repeat(string(rune(i+1)), 4096) {
			w.t.Errorf("%s: block %d has %q…", file, i, block[:8])
		}
	}
}

// TestPassthroughOutlivesTheDaemon: who has the file open goes on when the daemon was
// killed, or restarted in order; who opens it afterwards has the same disk, by the
// kernel again; and the file can be taken away when it is closed.
func TestPassthroughOutlivesTheDaemon(t *testing.T) {
	d := newManaged(t)
	image := d.image("disk", "--passthrough")
	file := filepath.Join(d.mount, "disk")
	c, err := apiclient.New(apiclient.Config{Address: "unix:" + d.at("api")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	passes := func(when string) {
		t.Helper()
		if st, err := c.Show(t.Context(), "disk"); err != nil || !st.Passthrough {
			t.Errorf("%s: passthrough %v, %v", when, st.Passthrough, err)
		}
	}
	passes("at first")
	w := newTypist(t, file, image)
	for _, end := range []struct {
		name string
		end  func()
	}{
		{"killed", d.m.Kill9},
		{"ended", func() {
			if err := d.m.End(); err != nil {
				t.Errorf("the daemon's end: %v", err)
			}
		}},
		{"ended again", func() {
			if err := d.m.End(); err != nil {
				t.Errorf("the daemon's end: %v", err)
			}
		}},
		{"killed again", d.m.Kill9},
	} {
		end.end()
		w.begin() // nobody serves the mount; the kernel asks before it writes
		d.m.Restart()
		w.done()
		passes(end.name)
		w.write()
		w.same(file)
		w.same(image)
	}
	_ = w.in.Close()
	if err := w.proc.Wait(); err != nil {
		t.Errorf("the client: %v", err)
	}
	lab.Run(t, lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "remove", "disk")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	w.same(image)
	if err := d.m.Stop(); err != nil {
		t.Errorf("the end: %v", err)
	}
}

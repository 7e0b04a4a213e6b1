//go:build interop

package interop

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/block"
	"sluice/internal/lab"
	"sluice/nbd"
)

// nbdExports serves three exports, one of them read-only.
func nbdExports(t *testing.T) (socket, image string) {
	t.Helper()
	lab.Need(t, "nbdinfo", "nbdcopy")
	image = newImage(t)
	return serve(t, nbd.ServerConfig{},
		&nbd.Export{Device: openFile(t, image, block.OpenOptions{}), Description: "the image"},
		&nbd.Export{Name: "ram", Device: newMem(t, 8*mib)},
		&nbd.Export{Name: "frozen", Description: "do not touch", Device: newMem(t, 1*mib), ReadOnly: true}), image
}

// nbdinfoExport is the part of nbdinfo's JSON that is checked.
type nbdinfoExport struct {
	Name        string   `json:"export-name"`
	Description string   `json:"description"`
	Size        int64    `json:"export-size"`
	Contexts    []string `json:"contexts"`
	ReadOnly    bool     `json:"is_read_only"`
	Cache       bool     `json:"can_cache"`
	DF          bool     `json:"can_df"`
	FastZero    bool     `json:"can_fast_zero"`
	Flush       bool     `json:"can_flush"`
	FUA         bool     `json:"can_fua"`
	MultiConn   bool     `json:"can_multi_conn"`
	Trim        bool     `json:"can_trim"`
	Zero        bool     `json:"can_zero"`
	Minimum     int      `json:"block_size_minimum"`
	Preferred   int      `json:"block_size_preferred"`
	Maximum     int      `json:"block_size_maximum"`
}

type nbdinfoReply struct {
	Protocol   string          `json:"protocol"`
	TLS        bool            `json:"TLS"`
	Structured bool            `json:"structured"`
	Exports    []nbdinfoExport `json:"exports"`
}

func nbdinfo(t *testing.T, args ...string) nbdinfoReply {
	t.Helper()
	var reply nbdinfoReply
	text := lab.Run(t, "nbdinfo", append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &reply); err != nil {
		t.Fatalf("nbdinfo: %v\n%s", err, text)
	}
	return reply
}

func TestNbdinfo(t *testing.T) {
	socket, _ := nbdExports(t)
	reply := nbdinfo(t, uri(socket))
	if reply.Protocol != "newstyle-fixed" || reply.TLS || !reply.Structured || len(reply.Exports) != 1 {
		t.Fatalf("nbdinfo: %+v", reply)
	}
	x := reply.Exports[0]
	if x.Size != imageSize || x.Description != "the image" || x.ReadOnly || x.Minimum != 1 || x.Preferred != 4096 || x.Maximum != 32*mib {
		t.Errorf("export %+v", x)
	}
	if !x.Cache || !x.DF || !x.FastZero || !x.Flush || !x.FUA || !x.MultiConn || !x.Trim || !x.Zero {
		t.Errorf("export %+v", x)
	}
	if got := strings.Join(x.Contexts, " "); got != "base:allocation qemu:allocation-depth" {
		t.Errorf("contexts %s", got)
	}
	if x := nbdinfo(t, uriOf("frozen", socket)).Exports[0]; !x.ReadOnly || x.Trim || x.Zero || x.FastZero {
		t.Errorf("read-only export %+v", x)
	}
	text := lab.Run(t, "nbdinfo", uri(socket))
	for _, want := range []string{"export-size: 67121209", "can_multi_conn: true", "base:allocation"} {
		if !strings.Contains(text, want) {
			t.Errorf("nbdinfo does not say %q:\n%s", want, text)
		}
	}
	if size := strings.TrimSpace(lab.Run(t, "nbdinfo", "--size", uriOf("ram", socket))); size != "8388608" {
		t.Errorf("size %s", size)
	}
	for option, good := range map[string]bool{
		"--is read-only": false, "--can flush": true, "--can multi-conn": true, "--can df": true, "--is rotational": false,
	} {
		args := append(strings.Fields(option), uri(socket))
		p := lab.Start(t, "nbdinfo", args...)
		if err := p.Wait(); (err == nil) != good {
			t.Errorf("nbdinfo %s: %v", option, err)
		}
	}
	fails(t, "nbdinfo", uriOf("nobody", socket))
}

func TestNbdinfoList(t *testing.T) {
	socket, _ := nbdExports(t)
	var names []string
	for _, x := range nbdinfo(t, "--list", uri(socket)).Exports {
		names = append(names, x.Name+"="+x.Description)
	}
	if got := strings.Join(names, " "); got != "=the image frozen=do not touch ram=" {
		t.Errorf("exports %q", got)
	}
}

// nbdExtent is a line of nbdinfo's map.
type nbdExtent struct {
	Offset, Length int64
	Type           int
}

func nbdMap(t *testing.T, socket, option string) []nbdExtent {
	t.Helper()
	var list []nbdExtent
	text := lab.Run(t, "nbdinfo", option, "--json", uri(socket))
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("nbdinfo %s: %v\n%s", option, err, text)
	}
	return list
}

func TestNbdinfoMap(t *testing.T) {
	socket, _ := nbdExports(t)
	want := []nbdExtent{
		{0, 16 * mib, 0}, {16 * mib, 16 * mib, 3}, {32 * mib, 64 * kib, 0},
		{32*mib + 64*kib, 16*mib - 64*kib, 3}, {48 * mib, imageSize - 48*mib, 0},
	}
	if got := nbdMap(t, socket, "--map"); !equalMaps(got, want) {
		t.Errorf("map %v, want %v", got, want)
	}
	if got := nbdMap(t, socket, "--map=qemu:allocation-depth"); len(got) == 0 || got[len(got)-1].Offset+got[len(got)-1].Length != imageSize {
		t.Errorf("depth %v", got)
	}
	if text := lab.Run(t, "nbdinfo", "--map", "--totals", uri(socket)); !strings.Contains(text, "hole,zero") {
		t.Errorf("totals: %s", text)
	}
}

// equalMaps allows a cut at the file system's block of the last bytes.
func equalMaps(a, b []nbdExtent) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestNbdcopy(t *testing.T) {
	socket, image := nbdExports(t)
	for _, connections := range []string{"1", "4"} {
		t.Run("read over "+connections, func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "copy")
			lab.Run(t, "nbdcopy", "--connections="+connections, uri(socket), to)
			sameContent(t, image, to)
			if allocated(t, to) > 36*mib {
				t.Errorf("the copy takes up %d bytes: its holes are lost", allocated(t, to))
			}
		})
		t.Run("write over "+connections, func(t *testing.T) {
			to := emptyImage(t, imageSize)
			lab.Run(t, "nbdcopy", "--connections="+connections, "--flush", image, uri(serveImage(t, to)))
			sameContent(t, image, to)
		})
		t.Run("overwrite over "+connections, func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "full")
			if err := os.WriteFile(to, noise(imageSize, 99), 0o600); err != nil {
				t.Fatal(err)
			}
			lab.Run(t, "nbdcopy", "--connections="+connections, "--requests=64", image, uri(serveImage(t, to)))
			sameContent(t, image, to)
		})
	}
	t.Run("one request at a time", func(t *testing.T) {
		to := filepath.Join(t.TempDir(), "copy")
		lab.Run(t, "nbdcopy", "--synchronous", uri(socket), to)
		sameContent(t, image, to)
	})
	t.Run("server to server", func(t *testing.T) {
		to := emptyImage(t, imageSize)
		lab.Run(t, "nbdcopy", uri(socket), uri(serveImage(t, to)))
		sameContent(t, image, to)
	})
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// python runs a script of testdata under the interpreter that has libnbd's
// binding.
func python(t *testing.T, script string, args ...string) string {
	t.Helper()
	lab.Need(t, "nbdsh")
	return lab.Run(t, "/usr/bin/python3", append([]string{filepath.Join("testdata", script)}, args...)...)
}

// TestNbdshNegotiation tries every switch of the negotiation, off and on.
func TestNbdshNegotiation(t *testing.T) {
	for name, dev := range map[string]block.Device{
		"file": openFile(t, newImage(t), block.OpenOptions{}), "mem": newMem(t, imageSize),
	} {
		t.Run(name, func(t *testing.T) {
			socket := serve(t, nbd.ServerConfig{}, &nbd.Export{Device: dev, Description: "described"}, &nbd.Export{Name: "other", Device: newMem(t, mib)})
			if out := python(t, "negotiation.py", socket); !strings.Contains(out, "combinations") {
				t.Errorf("script says %q", out)
			}
		})
	}
}

// TestNbdshInvalid turns the client's own checks off, to see the server's.
func TestNbdshInvalid(t *testing.T) {
	socket := serve(t, nbd.ServerConfig{}, &nbd.Export{Device: newMem(t, 128*mib)}, &nbd.Export{Name: "ro", Device: newMem(t, mib), ReadOnly: true})
	python(t, "invalid.py", socket)
}

package nfstest

import (
	"bytes"
	"slices"
	"testing"

	"sluice/backends/nfs/xdr"
)

// skipAttrs takes post_op_attr off.
func skipAttrs(r *xdr.Reader) (size uint64) {
	if r.Bool() {
		r.Skip(20)
		size = r.Uint64()
		r.Skip(8 + 8 + 16 + 24)
	}
	return size
}

func skipWCC(r *xdr.Reader) {
	if r.Bool() {
		r.Skip(24)
	}
	skipAttrs(r)
}

// call3 calls a procedure of NFSv3 and gives status and what follows.
func (w *wire) call3(procedure uint32, args ...[]byte) (uint32, xdr.Reader) {
	w.t.Helper()
	r := w.call(100003, 3, procedure, bytes.Join(args, nil))
	return r.Uint32(), r
}

// mount gives the handle of the export.
func (w *wire) mount(path string) []byte {
	w.t.Helper()
	r := w.call(100005, 3, 1, str(path))
	if status := r.Uint32(); status != ok {
		w.t.Fatalf("MNT: status %d", status)
	}
	return xdr.AppendOpaque(nil, r.Opaque(64))
}

// made creates something and gives its handle.
func (w *wire) made(procedure uint32, args ...[]byte) []byte {
	w.t.Helper()
	status, r := w.call3(procedure, args...)
	if status != ok || !r.Bool() {
		w.t.Fatalf("procedure %d: status %d", procedure, status)
	}
	fh := xdr.AppendOpaque(nil, r.Opaque(64))
	skipAttrs(&r)
	skipWCC(&r)
	if r.Err() != nil || r.Len() != 0 {
		w.t.Fatalf("procedure %d: %v, %d bytes left", procedure, r.Err(), r.Len())
	}
	return fh
}

// TestPortmapAndMount: how a client of NFSv3 finds the export.
func TestPortmapAndMount(t *testing.T) {
	s := Start(t, Options{})
	w := dial(t, s)
	for program, version := range map[uint32]uint32{100003: 3, 100005: 3, 100000: 2} {
		if r := w.call(100000, 2, 3, u32(program, version, 6, 0)); int(r.Uint32()) != s.Port() {
			t.Errorf("program %d has another port", program)
		}
	}
	if r := w.call(100000, 2, 3, u32(100003, 3, 17, 0)); r.Uint32() != 0 {
		t.Error("NFS over UDP")
	}
	r := w.call(100005, 3, 5, nil)
	if !r.Bool() || r.String(100) != "/export" || r.Bool() || r.Bool() || r.Len() != 0 {
		t.Error("EXPORT")
	}
	w.mount("/export/")
	for path, want := range map[string]uint32{"/": errAccess, "/exports": errAccess, "/export/no": errNoEnt} {
		r := w.call(100005, 3, 1, str(path))
		if status := r.Uint32(); status != want {
			t.Errorf("MNT %s: status %d", path, status)
		}
	}
	r = w.call(100005, 3, 3, str("/export"))
	if r.Len() != 0 {
		t.Error("UMNT")
	}
	w.send(w.message(100003, 2, 0, nil))
	if got := w.receive(); !bytes.Equal(got[headerSize-4:], u32(progMismatch, 3, 4)) {
		t.Errorf("NFSv2: %x", got)
	}
	w.send(w.message(100021, 4, 0, nil))
	if got := w.receive(); !bytes.Equal(got[headerSize-4:], u32(progUnavail)) {
		t.Errorf("NLM: %x", got)
	}
}

// TestFile3: a file of NFSv3, from CREATE to COMMIT.
func TestFile3(t *testing.T) {
	s := Start(t, Options{Limits: Limits{WriteSize: 8}})
	w := dial(t, s)
	root := w.mount("/export")
	exclusive := [][]byte{root, str("disk"), u32(2), []byte("verifier")}
	fh := w.made(8, exclusive...)
	if again := w.made(8, exclusive...); !bytes.Equal(fh, again) {
		t.Error("the retry made another file")
	}
	exclusive[3] = []byte("VERIFIER")
	if status, _ := w.call3(8, exclusive...); status != errExist {
		t.Errorf("CREATE: status %d", status)
	}
	status, r := w.call3(7, fh, u64(2), u32(10, 0), xdr.AppendOpaque(nil, []byte("0123456789")))
	skipWCC(&r)
	if n, stable := r.Uint32(), r.Uint32(); status != ok || n != 8 || stable != 0 {
		t.Errorf("WRITE: status %d, %d bytes", status, n)
	}
	f := s.File("/export/disk")
	if len(f.Durable()) != 0 {
		t.Error("durable without COMMIT")
	}
	status, r = w.call3(21, fh, u64(0), u32(0))
	skipWCC(&r)
	if verifier := s.Verifier(); status != ok || !bytes.Equal(r.Rest(), verifier[:]) || len(f.Durable()) != 10 {
		t.Errorf("COMMIT: status %d", status)
	}
	status, r = w.call3(6, fh, u64(0), u32(5))
	if size := skipAttrs(&r); status != ok || size != 10 || r.Uint32() != 5 || r.Bool() || string(r.Opaque(10)) != "\x00\x00012" {
		t.Errorf("READ: status %d", status)
	}
	resize := append(u32(0, 0, 0, 1), u64(4)...)
	status, r = w.call3(2, fh, resize, u32(0, 0), u32(0))
	skipWCC(&r)
	if status != ok || r.Err() != nil || len(f.Durable()) != 4 {
		t.Errorf("SETATTR: status %d", status)
	}
	if status, _ = w.call3(2, fh, resize, u32(0, 0), u32(1, 1, 1)); status != errNotSync {
		t.Errorf("SETATTR with a guard: status %d", status)
	}
	for _, procedure := range []uint32{1, 18, 19, 20} {
		if status, _ := w.call3(procedure, fh); status != ok {
			t.Errorf("procedure %d: status %d", procedure, status)
		}
	}
	s.Fail("v3.READ", 5, 1)
	if status, r := w.call3(6, fh, u64(0), u32(5)); status != 5 || r.Len() != 4 {
		t.Errorf("READ: status %d", status)
	}
	s.Remove("/export/disk")
	if status, _ := w.call3(6, fh, u64(0), u32(5)); status != errStale {
		t.Errorf("READ of a file that is gone: status %d", status)
	}
}

// TestNames3: directories of NFSv3.
func TestNames3(t *testing.T) {
	s := Start(t, Options{})
	w := dial(t, s)
	root, none := w.mount("/export"), u32(0, 0, 0, 0, 0, 0)
	dir := w.made(9, root, str("dir"), none)
	link := w.made(10, root, str("link"), none, str("target"))
	fh := w.made(8, root, str("a"), u32(1), none)
	status, r := w.call3(5, link)
	if skipAttrs(&r); status != ok || r.String(100) != "target" {
		t.Errorf("READLINK: status %d", status)
	}
	for _, call := range []struct {
		procedure, want uint32
		args            []byte
	}{
		{14, ok, bytes.Join([][]byte{root, str("a"), dir, str("b")}, nil)},
		{15, ok, bytes.Join([][]byte{fh, dir, str("c")}, nil)},
		{13, errNotEmpty, append(bytes.Clone(root), str("dir")...)},
		{12, errIsDir, append(bytes.Clone(root), str("dir")...)},
		{12, ok, append(bytes.Clone(dir), str("b")...)},
		{12, ok, append(bytes.Clone(root), str("link")...)},
		{12, errNoEnt, append(bytes.Clone(root), str("link")...)},
		{3, ok, append(bytes.Clone(dir), str("..")...)},
		{3, errInval, append(bytes.Clone(dir), str("x/y")...)},
		{3, errNotDir, append(bytes.Clone(fh), str("x")...)},
	} {
		if status, _ := w.call3(call.procedure, call.args); status != call.want {
			t.Errorf("procedure %d: status %d, not %d", call.procedure, status, call.want)
		}
	}
	for _, name := range []string{"d", "e", "f"} {
		s.Create("/export/dir/"+name, nil)
	}
	for _, plus := range []bool{false, true} {
		var names []string
		for cookie, eof := uint64(0), false; !eof; {
			procedure, count := uint32(16), u32(170)
			if plus {
				procedure, count = 17, u32(100, 400)
			}
			status, r := w.call3(procedure, dir, u64(cookie, 0), count)
			if status != ok {
				t.Fatalf("procedure %d: status %d", procedure, status)
			}
			skipAttrs(&r)
			r.Skip(8)
			for r.More() {
				r.Skip(8)
				names = append(names, r.String(255))
				cookie = r.Uint64()
				if plus {
					skipAttrs(&r)
					r.Bool()
					r.Opaque(64)
				}
			}
			eof = r.Bool()
			if r.Err() != nil {
				t.Fatal(r.Err())
			}
		}
		if !slices.Equal(names, []string{"c", "d", "e", "f"}) {
			t.Errorf("names %q", names)
		}
	}
}

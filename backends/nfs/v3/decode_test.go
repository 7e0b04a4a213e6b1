package v3

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
)

// fattr encodes attributes in the order of the RFC.
func fattr() []byte {
	b := u32(1, 0o100640, 2, 1000, 1001)
	for _, v := range []uint64{4096, 512, 0, 77, 255} {
		b = xdr.AppendUint64(b, v)
	}
	return append(b, u32(11, 12, 1700000000, 5, 15, 16)...)
}

func TestAttributes(t *testing.T) {
	var a attributes
	r := xdr.NewReader(fattr())
	a.read(&r)
	if err := r.Err(); err != nil || r.Len() != 0 || len(fattr()) != attrSize {
		t.Fatal(err, r.Len(), len(fattr()))
	}
	want := remote.Attr{
		Type: remote.Regular, Size: 4096, Used: 512, ID: remote.FileID{FSID: [2]uint64{77, 0}, ID: 255}, Links: 2, Mode: 0o640,
		UID: 1000, GID: 1001, ModTime: time.Unix(1700000000, 5), Change: 15<<32 | 16,
	}
	if diff := cmp.Diff(want, a.Attr); diff != "" {
		t.Error(diff)
	}
	if !a.known || a.times != [2]uint32{11, 1700000000} {
		t.Errorf("%+v", a)
	}
}

func TestSetAttributesInOrder(t *testing.T) {
	size, mode, uid, gid := int64(1<<33), uint32(0o600), uint32(36), uint32(37)
	got := appendSetAttr(nil, handle{1, 2, 3, 4}, remote.SetAttr{Size: &size, Mode: &mode, UID: &uid, GID: &gid}, true)
	want := append([]byte{0, 0, 0, 4, 1, 2, 3, 4}, u32(1, 0o600, 1, 36, 1, 37, 1, 2, 0, 1, 1, 0)...)
	if !bytes.Equal(got, want) {
		t.Errorf("%x\n%x", got, want)
	}
	got = appendSet(nil, remote.SetAttr{}, false)
	if !bytes.Equal(got, make([]byte, 24)) {
		t.Errorf("%x", got)
	}
}

func TestExportOfAPath(t *testing.T) {
	list := []string{"/a", "/a/b", "/", "/abc", "/z"}
	for p, want := range map[string][]string{
		"/a/b/c":  {"/a/b", "/a", "/", "/a/b/c"},
		"/a/bc":   {"/a", "/", "/a/bc"},
		"/abcd/x": {"/", "/abcd/x", "/abcd"},
	} {
		if got := candidates(p, list); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", p, got, want)
		}
	}
	if got := candidates("/a/b", nil); !slices.Equal(got, []string{"/a/b", "/a", "/"}) {
		t.Error(got)
	}
	c := &Client{exports: list, roots: []*root{{dir: "/"}, {dir: "/a"}}}
	for p, want := range map[string]string{"/a/x": "/a", "/a": "/a", "/q": "/", "/a/b/x": "", "/z": ""} {
		got := ""
		if r := c.mounted(p); r != nil {
			got = r.dir
		}
		if got != want {
			t.Errorf("%s: mounted %q, want %q", p, got, want)
		}
	}
}

// decoders are all of the package, for results after the status or with it.
var decoders = map[string]func(results []byte) error{
	"attributes": func(p []byte) error {
		r := result{Reader: xdr.NewReader(p), proc: procGetAttr}
		var a attributes
		a.read(&r.Reader)
		return r.check()
	},
	"lookup": func(p []byte) error {
		r := result{Reader: xdr.NewReader(p), proc: procLookup}
		_, err := lookupResult(&r)
		return err
	},
	"changes": func(p []byte) error {
		r := result{Reader: xdr.NewReader(p), proc: procRename}
		readPostHandle(&r.Reader)
		skipPost(&r.Reader)
		skipWCC(&r.Reader)
		return r.check()
	},
	"folder": func(p []byte) error {
		r := result{Reader: xdr.NewReader(p), proc: procReadDir}
		(&listing{}).decode(&r)
		return r.check()
	},
	"folder with attributes": func(p []byte) error {
		r := result{Reader: xdr.NewReader(p), proc: procReadDirPlus}
		(&listing{plus: true}).decode(&r)
		return r.check()
	},
	"exports": func(p []byte) error {
		r := xdr.NewReader(p)
		_, err := readExports(&r)
		return err
	},
	"mount": func(p []byte) error {
		r := xdr.NewReader(p)
		_, err := readMnt(&r)
		return err
	},
	"read": func(p []byte) error {
		_, err := readResult(p, 0, make([]byte, 4096))
		return err
	},
	"read with data": func(p []byte) error {
		_, err := readResult(p, 16, make([]byte, 4096))
		return err
	},
	"write":  func(p []byte) error { _, err := write{p: make([]byte, 4096)}.result(p); return err },
	"commit": func(p []byte) error { _, err := commitResult(p); return err },
}

// Whatever a server answers, decoding ends, with an error or without.
func FuzzResults(f *testing.F) {
	f.Add(append(u32(0, 1), append(fattr(), u32(4, 1, 4, 0)...)...))
	f.Add(append(u32(4, 9, 1), fattr()...))
	f.Add(append(u32(0, 0, 1), append(fattr(), u32(4096, 2, 1, 2)...)...))
	f.Add(u32(0, 0, 0, 0, 1, 0, 5, 3, 0x61626300, 0, 9, 0, 0, 0, 1))
	f.Add(u32(1, 4, 0x2f612f62, 1, 3, 0x61626300, 0, 0))
	f.Fuzz(func(t *testing.T, p []byte) {
		for name, decode := range decoders {
			if decode(p) == nil && len(p) < 4 {
				t.Errorf("%s: nothing was accepted", name)
			}
		}
		if at, _ := (readPayload{}).Payload(p); at < 0 || at > len(p) {
			t.Errorf("payload at %d of %d", at, len(p))
		}
	})
}

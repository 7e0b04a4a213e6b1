package v3

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/nfstest"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// answer has all calls of a procedure answered with other results.
func (b *bench) answer(op string, change func(result []byte) []byte) {
	b.server.Hook(func(name string, _ []byte) nfstest.Action {
		if name == op {
			return nfstest.Action{Result: change}
		}
		return nfstest.Action{}
	})
}

func u32(vs ...uint32) (b []byte) {
	for _, v := range vs {
		b = xdr.AppendUint32(b, v)
	}
	return b
}

// bare are the results of procedures without the attributes and handles that a server may
// leave out, made from those with them. The server of the tests tells no attributes from
// before.
var bare = map[string]func(p []byte) []byte{
	"v3.LOOKUP": func(p []byte) []byte { return append(p[:len(p)-2*(4+attrSize)], u32(0, 0)...) },
	"v3.CREATE": func([]byte) []byte { return u32(0, 0, 0, 0, 0) },
	"v3.READ":   func(p []byte) []byte { return append(u32(0, 0), p[8+attrSize:]...) },
	"v3.WRITE":  func(p []byte) []byte { return append(u32(0, 0, 0), p[12+attrSize:]...) },
	"v3.COMMIT": func(p []byte) []byte { return append(u32(0, 0, 0), p[12+attrSize:]...) },
	"v3.ACCESS": func(p []byte) []byte { return append(u32(0, 0), p[8+attrSize:]...) },
	"v3.FSINFO": func(p []byte) []byte { return append(u32(0, 0), p[8+attrSize:]...) },
	"v3.FSSTAT": func(p []byte) []byte { return append(u32(0, 0), p[8+attrSize:]...) },
	"v3.REMOVE": func([]byte) []byte { return u32(0, 0, 0) },
	"v3.RENAME": func([]byte) []byte { return u32(0, 0, 0, 0, 0) },
	"v3.LINK":   func([]byte) []byte { return u32(0, 0, 0, 0) },
	"v3.SETATTR": func([]byte) []byte {
		before := append(u32(0, 1), make([]byte, preAttrSize)...) // and these are told, without those after
		return append(before, u32(0)...)
	},
	"v3.READLINK": func(p []byte) []byte { return append(u32(0, 0), p[8+attrSize:]...) },
	"v3.READDIRPLUS": func(p []byte) []byte {
		r := xdr.NewReader(p[8+attrSize:])
		out := append(u32(0, 0), r.Fixed(8)...)
		for r.More() {
			out = append(append(out, u32(1)...), r.Fixed(8)...)
			out = xdr.AppendString(out, r.String(maxName))
			out = append(append(out, r.Fixed(8)...), u32(0, 0)...)
			skipPost(&r)
			readPostHandle(&r)
		}
		return append(append(out, u32(0)...), r.Rest()...)
	},
}

// Attributes are optional everywhere.
func TestNoAttributes(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	b.server.Hook(func(op string, _ []byte) nfstest.Action {
		change := bare[op]
		if change == nil {
			return nfstest.Action{}
		}
		return nfstest.Action{Result: func(p []byte) []byte {
			if len(p) < 4 || !bytes.Equal(p[:4], u32(0)) {
				return p
			}
			return change(p)
		}}
	})
	b.session(1)
}

// A reply of the wrong shape is an error that names the procedure.
func TestHostileReplies(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(pattern(8192, 1), remote.OpenOptions{Write: true})
	ctx, tree := t.Context(), b.client.Tree().(tree)
	read := func() error { _, err := f.Read(ctx, make([]byte, 100), 0); return err }
	write := func() error { _, err := f.Write(ctx, make([]byte, 100), 0, true); return err }
	list := func() error { _, err := tree.List(ctx, "/export"); return err }
	const counts = 12 + attrSize // of WRITE's results
	for name, tt := range map[string]struct {
		op     string
		call   func() error
		change func([]byte) []byte
	}{
		"a read that brings nothing": {"READ", read, func(p []byte) []byte { return append(p[:8+attrSize], u32(0, 0, 0)...) }},
		"a count that is not the data's": {"READ", read, func(p []byte) []byte {
			return nfstest.Patch(8+attrSize, 99)(p)
		}},
		"a read's end":                {"READ", read, func(p []byte) []byte { return append(p[:8+attrSize], u32(100, 0)...) }},
		"attributes there or not":     {"READ", read, nfstest.Patch(4, 7)},
		"nothing written":             {"WRITE", write, nfstest.Patch(counts, 0)},
		"more written than was asked": {"WRITE", write, nfstest.Patch(counts, 101)},
		"written, but not durable":    {"WRITE", write, nfstest.Patch(counts+4, 1)},
		"written, and who knows how":  {"WRITE", write, nfstest.Patch(counts+4, 3)},
		"a write without a verifier":  {"WRITE", write, nfstest.Shorten(4)},
		"a commit without a verifier": {"COMMIT", func() error { _, err := f.Commit(ctx); return err }, nfstest.Shorten(4)},
		"a type that is none":         {"GETATTR", func() error { _, err := f.Attr(ctx); return err }, nfstest.Patch(4, 8)},
		"a size below zero":           {"GETATTR", func() error { _, err := f.Attr(ctx); return err }, nfstest.Patch(24, 1<<31)},
		"half the attributes":         {"SETATTR", func() error { return f.Truncate(ctx, 1) }, nfstest.Shorten(40)},
		"a handle of 4 GiB":           {"LOOKUP", func() error { _, err := tree.Stat(ctx, "/export/x", false); return err }, nfstest.Patch(4, 1<<32-1)},
		"an empty handle":             {"LOOKUP", func() error { _, err := tree.Stat(ctx, "/export/x", false); return err }, nfstest.Patch(4, 0)},
		"no status":                   {"FSSTAT", func() error { _, _, err := tree.Space(ctx, "/export"); return err }, func([]byte) []byte { return nil }},
		"half a status":               {"ACCESS", func() error { _, err := b.client.Open(ctx, "/export/x", remote.OpenOptions{}); return err }, func(p []byte) []byte { return p[:8] }},
		"no limits":                   {"FSINFO", func() error { _, err := b.client.Open(ctx, "/export/x", remote.OpenOptions{}); return err }, func(p []byte) []byte { return p[:40] }},
		"an empty link":               {"READLINK", func() error { _, err := tree.Stat(ctx, "/export/link", true); return err }, func(p []byte) []byte { return append(p[:8+attrSize], u32(0)...) }},
		"a folder that never ends":    {"READDIRPLUS", list, nfstest.Patch(-4, 0)},
		"a name with a slash":         {"READDIRPLUS", list, func(p []byte) []byte { return bytes.ReplaceAll(p, []byte("disk.img"), []byte("../a.img")) }},
		"half a name":                 {"READDIRPLUS", list, func(p []byte) []byte { return p[:8+attrSize+8+20] }},
		"a list that goes on":         {"READDIRPLUS", list, nfstest.Patch(-8, 1)},
		"a handle that is none":       {"CREATE", func() error { return tree.Create(ctx, "/export/new", remote.SetAttr{}) }, nfstest.Patch(8, 65)},
		"half a change":               {"LINK", func() error { return tree.Link(ctx, "/export/x", "/export/y") }, nfstest.Shorten(20)},
	} {
		b.server.Create("/export/x", nil)
		b.server.Remove("/export/new")
		b.server.Remove("/export/y")
		if !b.server.Exists("/export/link") {
			b.server.Symlink("x", "/export/link")
		}
		b.answer("v3."+tt.op, tt.change)
		err := tt.call()
		b.server.Honest()
		if !errors.Is(err, block.IO) || !strings.Contains(err.Error(), tt.op+": ") {
			t.Errorf("%s: %v (%v)", name, err, block.KindOf(err))
		}
	}
	if got := b.read(f, 4096, 100); !bytes.Equal(got, pattern(8192, 1)[4096:4196]) && len(got) != 0 {
		t.Error("what came before has spoiled this")
	}
}

// A reply with more data than was asked for never gets into the caller's memory.
func TestTooMuchData(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = 100 * time.Millisecond })
	f := b.open(pattern(8192, 1), remote.OpenOptions{})
	b.answer("v3.READ", func(p []byte) []byte {
		p = append(p[:8+attrSize], u32(4096, 0)...)
		return xdr.AppendOpaque(p, make([]byte, 4096))
	})
	p := pattern(200, 9)
	if _, err := f.Read(t.Context(), p[:100], 0); !errors.Is(err, block.IO) || !strings.Contains(err.Error(), "READ: ") {
		t.Errorf("%v (%v)", err, block.KindOf(err))
	}
	if !bytes.Equal(p[100:], pattern(200, 9)[100:]) {
		t.Error("memory behind the buffer was changed")
	}
}

// A listing whose cookies go round ends.
func TestCookiesThatGoRound(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	n := uint64(0)
	b.answer("v3.READDIRPLUS", func([]byte) []byte {
		n++
		out := append(u32(0, 0), make([]byte, 8)...)
		out = append(out, u32(1, 0, 1)...)
		out = xdr.AppendString(out, fmt.Sprintf("name%d", n))
		out = xdr.AppendUint64(out, n%5+1)
		return append(out, u32(0, 0, 0, 0)...)
	})
	if _, err := b.client.Tree().List(t.Context(), "/export"); !errors.Is(err, block.IO) || !strings.Contains(err.Error(), "no end") {
		t.Error(err)
	}
}

// Calls that the server refuses to decode, or to have.
func TestRefusals(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(pattern(8192, 1), remote.OpenOptions{})
	for accept, kind := range map[uint32]block.Kind{
		1: block.Unsupported, 2: block.Unsupported, 3: block.Unsupported, 4: block.IO, 5: block.IO,
	} {
		b.nth("v3.READ", 1, nfstest.Action{Accept: accept})
		if _, err := f.Read(t.Context(), make([]byte, 10), 0); block.KindOf(err) != kind || !strings.HasPrefix(err.Error(), "READ: ") {
			t.Errorf("accept_stat %d: %v (%v)", accept, err, block.KindOf(err))
		}
	}
	// A server without READDIRPLUS, ACCESS and EXCLUSIVE.
	b.server.Hook(func(op string, args []byte) nfstest.Action {
		switch {
		case op == "v3.READDIRPLUS", op == "v3.ACCESS":
			return nfstest.Action{Accept: 3}
		case op == "v3.CREATE" && bytes.HasPrefix(args[len(args)-12:], u32(createExclusive)):
			return nfstest.Action{Status: uint32(nfsstat.NotSupp)}
		}
		return nfstest.Action{}
	})
	b.session(1)
}

// Mount services that say odd things.
func TestHostileMounts(t *testing.T) {
	s := nfstest.Start(t, nfstest.Options{})
	for name, tt := range map[string]struct {
		op     string
		change func([]byte) []byte
		kind   block.Kind
	}{
		"a list without end":      {"mount.EXPORT", func([]byte) []byte { return u32(1) }, block.OK}, // MNT finds it
		"an empty list":           {"mount.EXPORT", func([]byte) []byte { return u32(0) }, block.OK},
		"no handle":               {"mount.MNT", func([]byte) []byte { return u32(0) }, block.IO},
		"an empty handle":         {"mount.MNT", func([]byte) []byte { return u32(0, 0, 0) }, block.IO},
		"no status":               {"mount.MNT", func([]byte) []byte { return nil }, block.IO},
		"too many flavors":        {"mount.MNT", func([]byte) []byte { return u32(0, 4, 7, 1<<31) }, block.IO},
		"Kerberos only":           {"mount.MNT", func([]byte) []byte { return u32(0, 4, 7, 1, 390003) }, block.Permission},
		"a port that cannot be":   {"portmap.GETPORT", func([]byte) []byte { return u32(1 << 20) }, block.IO},
		"half a port":             {"portmap.GETPORT", func([]byte) []byte { return nil }, block.IO},
		"a handle that is no one": {"mount.MNT", func([]byte) []byte { return u32(0, 4, 7, 0) }, block.IO},
	} {
		b := &bench{T: t, server: s}
		b.answer(tt.op, tt.change)
		cfg := configOf(s)
		cfg.MountPort = 0
		c, err := Dial(t.Context(), cfg)
		if err == nil {
			_ = c.Close()
		}
		if block.KindOf(err) != tt.kind {
			t.Errorf("%s: %v (%v)", name, err, block.KindOf(err))
		}
		s.Honest()
	}
}

// A listing that only ever holds "." comes to an end too.
func TestListingOfNothing(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	var cookie atomic.Uint64
	b.server.Hook(func(op string, _ []byte) nfstest.Action {
		if op != "v3.READDIRPLUS" {
			return nfstest.Action{}
		}
		return nfstest.Action{Result: func([]byte) []byte {
			p := make([]byte, 16) // OK, no attributes, verifier
			for range 2000 {
				p = xdr.AppendUint64(xdr.AppendUint32(p, 1), 1)
				p = xdr.AppendUint64(xdr.AppendString(p, "."), cookie.Add(1))
				p = xdr.AppendUint64(p, 0) // neither attributes nor handle
			}
			return xdr.AppendUint64(p, 0) // no more, and not the end
		}}
	})
	if _, err := b.client.Tree().List(t.Context(), "/export"); !errors.Is(err, block.NoSpace) {
		t.Error(err)
	}
}

// A server that is another instance with each reply costs no memory without end.
func TestVerifiersWithoutEnd(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	for i := range 2 * maxVerifiers {
		b.server.SetVerifier([8]byte{1, byte(i >> 8), byte(i)})
		b.write(f, make([]byte, 16), 0, false)
	}
	if n := len(b.client.verifiers); n > maxVerifiers {
		t.Errorf("%d verifiers are remembered", n)
	}
}

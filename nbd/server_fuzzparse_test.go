package nbd

import (
	"bytes"
	"strings"
	"testing"

	"sluice/block"
)

// FuzzServerContextQuery: what the parser takes is well formed, and is what was
// sent.
func FuzzServerContextQuery(f *testing.F) {
	str := func(s string) []byte { return append(be.AppendUint32(nil, uint32(len(s))), s...) }
	f.Add(append(str("disk"), 0, 0, 0, 0))
	f.Add(bytes.Join([][]byte{str(""), {0, 0, 0, 2}, str("base:allocation"), str("qemu:")}, nil))
	f.Add(bytes.Join([][]byte{str("x"), {0, 0, 0, 1}, str("no colon")}, nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0})
	offered := []metaContext{{name: ContextAllocation}, {name: ContextDepth}, {name: ContextDirty + "b", bitmap: "b"}}
	f.Fuzz(func(t *testing.T, data []byte) {
		export, queries, err := parseContextQuery(data)
		if err != nil {
			return
		}
		if checkString(export) != nil {
			t.Errorf("export name %q", export)
		}
		again := append(str(export), be.AppendUint32(nil, uint32(len(queries)))...)
		for _, q := range queries {
			if checkString(q) != nil || !strings.Contains(q, ":") {
				t.Errorf("query %q", q)
			}
			again = append(again, str(q)...)
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%x was read as %x", data, again)
		}
		if set := matchContexts(offered, queries, false); len(set) > len(queries) {
			t.Errorf("%q selected %v", queries, set)
		}
		if list := matchContexts(offered, queries, true); len(list) > len(offered) {
			t.Errorf("%q listed %v", queries, list)
		}
	})
}

// FuzzServerInfoRequest does the same for the data of INFO and GO.
func FuzzServerInfoRequest(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 1, 'x', 0, 2, 0, 1, 0, 3})
	f.Add([]byte{0xff, 0xff, 0xff, 0xfa, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		name, requests, err := parseInfoRequest(data)
		if err != nil {
			return
		}
		if checkString(name) != nil {
			t.Errorf("name %q", name)
		}
		again := append(be.AppendUint32(nil, uint32(len(name))), name...)
		again = be.AppendUint16(again, uint16(len(requests)))
		for _, r := range requests {
			again = be.AppendUint16(again, uint16(r))
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%x was read as %x", data, again)
		}
	})
}

// FuzzServerText: an error's text is a string by the protocol's rules whatever
// the device says.
func FuzzServerText(f *testing.F) {
	f.Add("read disk at 0: bad sector")
	f.Add("\xff\x00")
	f.Add(strings.Repeat("é", 3000))
	f.Fuzz(func(t *testing.T, text string) {
		if err := checkString(clip(text)); err != nil {
			t.Errorf("clip(%q): %v", text, err)
		}
		if checkString(text) == nil && clip(text) != text {
			t.Errorf("clip changed %q", text)
		}
	})
}

// TestWireErrorOfEveryKind: there is an error of the protocol's for every kind.
func TestWireErrorOfEveryKind(t *testing.T) {
	for kind := block.OK; kind <= block.Canceled; kind++ {
		code := wireErrorOf(kind)
		if _, known := wireErrorNames[code]; !known || (code == wireOK) != (kind == block.OK) || code == wireENOMEM {
			t.Errorf("%v becomes %v", kind, code)
		}
	}
}

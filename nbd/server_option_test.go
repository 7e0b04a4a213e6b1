package nbd_test

import (
	"context"
	"slices"
	"testing"

	"sluice/block"
	"sluice/nbd"
)

// CHECKLIST.md N20 to N28: options. N29 and N40 on are in server_tls_test.go.

var optionTests = []serverTest{
	{"N20_info_equals_go", testInfoEqualsGo},
	{"N20_info_does_not_end_the_handshake", testInfoStays},
	{"N20_malformed", testMalformedInfo},
	{"N21_information", testInformation},
	{"N22_errors_with_text", testOpenErrors},
	{"N23_export_name", testExportName},
	{"N23_export_name_unknown", testExportNameUnknown},
	{"N24_list", testList},
	{"N24_list_policy", testListPolicy},
	{"N25_default_export", testDefaultExport},
	{"N26_structured_reply", testStructuredOption},
	{"N27_list_contexts", testListContexts},
	{"N27_set_contexts", testSetContexts},
	{"N27_contexts_need_structured_replies", testContextsNeedStructured},
	{"N27_malformed", testMalformedQueries},
	{"N27_set_replaces", testSetReplaces},
	{"N27_bound_to_the_name", testSetBinds},
	{"N28_extended_headers", testExtendedOption},
	{"N28_export_name_after_extended_headers", testExtendedExportName},
}

func testInfoEqualsGo(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "a", Description: "b", Device: newDisk(1<<20, diskCaps)})
		c := dial(t, s.addr)
		c.negotiate(mode)
		if mode != simple {
			c.setMeta("a", "base:allocation")
		}
		before := c.askInfo(rOptInfo, "a")
		if c.goExport("a"); c.info != before {
			t.Errorf("INFO told %+v, GO %+v", before, c.info)
		}
	})
}

func testInfoStays(t *testing.T) {
	released := make(chan struct{}, 8)
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{
		Name: "a", Device: newMem(t, 1<<20), Release: func() { released <- struct{}{} },
	})
	c := dial(t, s.addr)
	for range 3 {
		c.askInfo(rOptInfo, "a")
		<-released
	}
	c.goExport("a")
	c.alive()
	if len(released) > 0 {
		t.Error("export given back while it is used")
	}
	c.start(rawRequest{cmd: rCmdDisc})
	<-released
}

func testMalformedInfo(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: newMem(t, 1<<20)})
	c := dial(t, s.addr)
	good := infoData("name", 1, 2)
	for _, opt := range []uint32{rOptInfo, rOptGo} {
		for n := range good {
			c.mustAnswer(opt, good[:n], rErrInvalid)
		}
		c.mustAnswer(opt, append(slices.Clone(good), 0), rErrInvalid)
		c.mustAnswer(opt, cat(be32(0xffffffff), []byte("ab\x00\x00")), rErrInvalid)
		c.mustAnswer(opt, cat(be32(0), []byte{0xff, 0xff}), rErrInvalid)
	}
	// Information that nobody knows, and the same twice, is no error.
	all := c.ask(rOptInfo, infoData("", 0, 99, 3, 3, 0xffff))
	if last := all[len(all)-1]; last.typ != rRepAck {
		t.Errorf("reply %#x %q", last.typ, last.data)
	}
	c.parseInfo(all[:len(all)-1])
}

func testInformation(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	d.info.Block = block.BlockSize{Min: 512, Preferred: 64 << 10, Max: 128 << 10}
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "disk", Description: "a disk", Device: d})
	c := dial(t, s.addr)
	x := c.askInfo(rOptInfo, "disk")
	if x.name != "disk" || x.description != "a disk" || x.size != 1<<20 {
		t.Errorf("told %+v", x)
	}
	if x.minBlock != 512 || x.prefBlock != 64<<10 || x.maxPayload != 32<<20 {
		t.Errorf("block sizes %d, %d, %d", x.minBlock, x.prefBlock, x.maxPayload)
	}
	// Name and description come only when asked for.
	all := c.ask(rOptInfo, infoData("disk"))
	if x := c.parseInfo(all[:len(all)-1]); x.hasName || x.hasDesc {
		t.Errorf("told unasked: %+v", x)
	}
}

// errorCatalog fails with a given error.
type errorCatalog struct{ err error }

func (c errorCatalog) List(context.Context, nbd.Peer) ([]nbd.Listing, error) { return nil, c.err }
func (c errorCatalog) Open(context.Context, string, nbd.Peer) (*nbd.Export, error) {
	return nil, c.err
}

func testOpenErrors(t *testing.T) {
	for kind, want := range map[block.Kind]uint32{
		block.NotFound:   rErrUnknown,
		block.Permission: rErrPolicy,
		block.Busy:       rErrPolicy,
		block.IO:         rErrPlatfrm,
		block.Corrupt:    rErrPlatfrm,
		block.Closed:     rErrShutdwn,
	} {
		err := block.Errorf(kind, "open export", "x", -1, "because of the test")
		s := serveWith(t, nbd.ServerConfig{Catalog: errorCatalog{err}})
		c := dial(t, s.addr)
		c.negotiate(structured)
		for _, opt := range []uint32{rOptInfo, rOptGo} {
			c.mustAnswer(opt, infoData("x"), want)
		}
		for _, opt := range []uint32{rOptListMeta, rOptSetMeta} {
			c.mustAnswer(opt, metaData("x", "base:allocation"), want)
		}
		c.mustAck(rOptAbort, nil)
	}
}

func testExportName(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "old", Device: newMem(t, 123456)})
	for _, flags := range []uint32{1, 3} {
		for _, mode := range []rawMode{simple, structured} {
			c := connect(t, s.addr)
			c.send(be32(flags))
			c.negotiate(mode)
			c.send(cat(optHeader(rOptExportName, 3), []byte("old")))
			p := c.recv(10)
			if u64(p) != 123456 {
				t.Errorf("size %d", u64(p))
			}
			df := be16(p[8:])&rDF != 0
			if be16(p[8:])&rHasFlags == 0 || df != (mode == structured) {
				t.Errorf("flags %#x with %v replies", be16(p[8:]), mode)
			}
			if flags&2 == 0 {
				mustEqual(t, c.recv(124), make([]byte, 124), "padding")
			}
			c.mustOK(c.write(5, pattern(100, 1)))
			mustEqual(t, c.mustOK(c.read(5, 100)).data, pattern(100, 1), "read")
		}
	}
}

func testExportNameUnknown(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "old", Device: newMem(t, 1<<20)})
	for _, name := range []string{"new", "", "\xff", "o\x00d"} {
		c := dial(t, s.addr)
		c.send(cat(optHeader(rOptExportName, uint32(len(name))), []byte(name)))
		c.mustClose()
	}
}

func testList(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{},
		&nbd.Export{Name: "b", Description: "second", Device: newMem(t, 1)},
		&nbd.Export{Name: "a", Device: newMem(t, 1)}, &nbd.Export{Name: "é", Device: newMem(t, 1)})
	c := dial(t, s.addr)
	var got []string
	for _, r := range c.ask(rOptList, nil) {
		if r.typ == rRepServer {
			n := u32(r.data)
			got = append(got, string(r.data[4:4+n])+"="+string(r.data[4+n:]))
		}
	}
	if want := []string{"a=", "b=second", "é="}; !slices.Equal(got, want) {
		t.Errorf("list %q, want %q", got, want)
	}
	c.mustAnswer(rOptList, []byte{0}, rErrInvalid)
	c.mustAck(rOptList, nil)
	empty := dial(t, serveWith(t, nbd.ServerConfig{}).addr)
	if all := empty.ask(rOptList, nil); len(all) != 1 {
		t.Errorf("empty list: %v", all)
	}
}

func testListPolicy(t *testing.T) {
	denied := block.Errorf(block.Permission, "list", "", -1, "not for you")
	s := serveWith(t, nbd.ServerConfig{Catalog: errorCatalog{denied}})
	c := dial(t, s.addr)
	c.mustAnswer(rOptList, nil, rErrPolicy)
	// What a peer may not open it does not see either.
	s = serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "open", Device: newMem(t, 1)}, &nbd.Export{Name: "shut", Device: newMem(t, 1)})
	s.exports.Authorize = func(name string, _ nbd.Peer) error {
		if name == "open" {
			return nil
		}
		return denied
	}
	c = dial(t, s.addr)
	if all := c.ask(rOptList, nil); len(all) != 2 || string(all[0].data[4:]) != "open" {
		t.Errorf("list %v", all)
	}
	c.mustAnswer(rOptGo, infoData("shut"), rErrPolicy)
}

func testDefaultExport(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "", Device: newMem(t, 77)}, &nbd.Export{Name: "x", Device: newMem(t, 88)})
	if c := enter(t, s.addr, simple, ""); c.info.size != 77 {
		t.Errorf("size %d", c.info.size)
	}
	if c := enter(t, s.addr, simple, "x"); c.info.size != 88 {
		t.Errorf("size %d", c.info.size)
	}
}

func testStructuredOption(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	c.mustAnswer(rOptStructured, []byte{1}, rErrInvalid)
	if x := c.askInfo(rOptInfo, ""); x.flags&rDF != 0 {
		t.Error("DF offered without structured replies")
	}
	c.negotiate(structured)
	c.mustAck(rOptStructured, nil)
	c.goExport("")
	if c.info.flags&rDF == 0 {
		t.Error("DF not offered with structured replies")
	}
	c.mustOK(c.read(0, 512))
}

func bitmapDisk() *disk {
	d := newDisk(1<<20, diskCaps|block.CapBitmaps)
	d.bitmaps = []string{"monday", "tuesday"}
	return d
}

const (
	qAllocation = "base:allocation"
	qDepth      = "qemu:allocation-depth"
	qMonday     = "qemu:dirty-bitmap:monday"
	qTuesday    = "qemu:dirty-bitmap:tuesday"
)

func testListContexts(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "x", Device: bitmapDisk()}, &nbd.Export{Name: "plain", Device: newDisk(1<<20, 0)})
	c := dial(t, s.addr)
	c.negotiate(structured)
	for _, test := range []struct {
		queries, want []string
	}{
		{nil, []string{qAllocation, qDepth, qMonday, qTuesday}},
		{[]string{"base:"}, []string{qAllocation}},
		{[]string{"qemu:"}, []string{qDepth, qMonday, qTuesday}},
		{[]string{"qemu:dirty-bitmap:"}, []string{qMonday, qTuesday}},
		{[]string{qTuesday, qAllocation}, []string{qAllocation, qTuesday}},
		{[]string{"base:nothing", "qemu:nothing", "x-vendor:", "x-vendor:thing", qMonday}, []string{qMonday}},
		{[]string{"base:alloc", "qemu:dirty-bitmap:mon"}, nil},
		{[]string{qDepth, qDepth, "qemu:"}, []string{qDepth, qMonday, qTuesday}},
	} {
		if got := c.listMeta("x", test.queries...); !slices.Equal(got, test.want) {
			t.Errorf("LIST %q gave %q, want %q", test.queries, got, test.want)
		}
	}
	if got := c.listMeta("plain"); !slices.Equal(got, []string{qAllocation}) {
		t.Errorf("a plain device has %q", got)
	}
	c.mustAnswer(rOptListMeta, metaData("nobody"), rErrUnknown)
}

func testSetContexts(t *testing.T) {
	s := serveDevice(t, bitmapDisk())
	c := dial(t, s.addr)
	c.negotiate(structured)
	for _, none := range [][]string{nil, {"base:"}, {"qemu:"}, {"qemu:dirty-bitmap:"}, {"x-vendor:a"}} {
		if ids := c.setMeta("", none...); len(ids) != 0 {
			t.Errorf("SET %q selected %v", none, ids)
		}
	}
	ids := c.setMeta("", qAllocation, qMonday, qTuesday, qDepth, qMonday)
	seen := map[uint32]bool{}
	for _, id := range ids {
		seen[id] = true
	}
	if len(ids) != 4 || len(seen) != 4 {
		t.Errorf("ids %v", ids)
	}
	c.mustAnswer(rOptSetMeta, metaData("nobody", qAllocation), rErrUnknown)
}

func testContextsNeedStructured(t *testing.T) {
	s := serveDevice(t, bitmapDisk())
	c := dial(t, s.addr)
	c.mustAnswer(rOptListMeta, metaData("", "base:"), rErrInvalid)
	c.mustAnswer(rOptSetMeta, metaData("", qAllocation), rErrInvalid)
	c.negotiate(extended)
	c.setMeta("", qAllocation)
}

func testMalformedQueries(t *testing.T) {
	s := serveDevice(t, bitmapDisk())
	c := dial(t, s.addr)
	c.negotiate(structured)
	good := metaData("", qAllocation, "qemu:")
	for _, opt := range []uint32{rOptListMeta, rOptSetMeta} {
		for n := range good {
			c.mustAnswer(opt, good[:n], rErrInvalid)
		}
		c.mustAnswer(opt, append(slices.Clone(good), 0), rErrInvalid)
		c.mustAnswer(opt, metaData("", "no colon"), rErrInvalid)
		c.mustAnswer(opt, metaData("", "base:\xff"), rErrInvalid)
		c.mustAnswer(opt, metaData("", "base:a\x00"), rErrInvalid)
		c.mustAnswer(opt, metaData("\xff", qAllocation), rErrInvalid)
		c.mustAnswer(opt, cat(lenString(""), be32(0xffffffff), lenString(qAllocation)), rErrInvalid)
		c.mustAnswer(opt, cat(be32(0xfffffffc), be32(0)), rErrInvalid)
	}
}

// testSetReplaces: each SET_META_CONTEXT begins anew, even one that fails.
func testSetReplaces(t *testing.T) {
	s := serveDevice(t, bitmapDisk())
	for name, second := range map[string]func(c *rawClient){
		"other":     func(c *rawClient) { c.setMeta("", qMonday) },
		"none":      func(c *rawClient) { c.setMeta("") },
		"malformed": func(c *rawClient) { c.mustAnswer(rOptSetMeta, []byte{1}, rErrInvalid) },
		"unknown":   func(c *rawClient) { c.mustAnswer(rOptSetMeta, metaData("nobody", qAllocation), rErrUnknown) },
		"too big":   func(c *rawClient) { c.mustAnswer(rOptSetMeta, make([]byte, 300<<10), rErrTooBig) },
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, s.addr)
			c.negotiate(structured)
			old := c.setMeta("", qAllocation, qDepth)
			second(c)
			c.goExport("")
			if name == "other" {
				if got := c.status(0, 0, 4096); len(got) != 1 || len(old) != 2 {
					t.Errorf("contexts %v", got)
				}
				return
			}
			c.mustFail(c.do(rawRequest{cmd: rCmdStatus, length: 4096}), rEINVAL)
		})
	}
}

func testSetBinds(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "a", Device: bitmapDisk()}, &nbd.Export{Name: "b", Device: bitmapDisk()})
	c := dial(t, s.addr)
	c.negotiate(structured)
	c.setMeta("a", qAllocation)
	c.goExport("b")
	c.mustFail(c.do(rawRequest{cmd: rCmdStatus, length: 4096}), rEINVAL)
	// LIST changes nothing about what was set.
	c = dial(t, s.addr)
	c.negotiate(structured)
	c.setMeta("b", qAllocation)
	c.listMeta("a", "base:")
	c.goExport("b")
	c.status(0, 0, 4096)
}

func testExtendedOption(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	c.mustAnswer(rOptExtended, []byte{1}, rErrInvalid)
	c.negotiate(structured)
	c.negotiate(extended) // wins over what was agreed before
	c.mustAnswer(rOptStructured, nil, rErrExtReqd)
	c.goExport("")
	if c.info.flags&rDF == 0 {
		t.Error("DF not offered with extended headers")
	}
	c.mustOK(c.read(0, 512))
}

func testExtendedExportName(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	c.negotiate(extended)
	c.send(optHeader(rOptExportName, 0))
	c.mustClose()
}

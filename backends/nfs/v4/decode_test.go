package v4

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
)

// build encodes attributes by the numbers of the RFC.
func build(which bitmap, values ...[]byte) []byte {
	return xdr.AppendOpaque(which.append(nil), bytes.Join(values, nil))
}

func u32(v uint32) []byte { return xdr.AppendUint32(nil, v) }
func u64(v uint64) []byte { return xdr.AppendUint64(nil, v) }

func TestAttributes(t *testing.T) {
	raw := build(attrs(1, 3, 4, 8, 20, 33, 35, 36, 37, 45, 53),
		u32(1), u64(9), u64(4096), u64(1), u64(2), u64(255), u32(0o640), u32(2),
		xdr.AppendString(nil, "1000"), xdr.AppendString(nil, "nobody"), u64(512), u64(1700000000), u32(5))
	var a attributes
	r := xdr.NewReader(raw)
	a.read(&r)
	if err := r.Err(); err != nil || r.Len() != 0 {
		t.Fatal(err, r.Len())
	}
	want := remote.Attr{
		Type: remote.Regular, Size: 4096, Used: 512, ID: remote.FileID{FSID: [2]uint64{1, 2}, ID: 255}, Links: 2, Mode: 0o640,
		UID: 1000, GID: ^uint32(0), ModTime: time.Unix(1700000000, 5), Change: 9,
	}
	if diff := cmp.Diff(want, a.Attr); diff != "" {
		t.Error(diff)
	}
}

func TestAttributesThatCannotBe(t *testing.T) {
	for name, raw := range map[string][]byte{
		"one that was not asked for": build(attrs(2), u32(1)),
		"one beyond the bitmap":      append(append(u32(3), make([]byte, 8)...), u32(1)...),
		"more bytes than attributes": build(attrs(4), u64(1), u32(0)),
		"fewer":                      build(attrs(4), u32(1)),
		"a size below zero":          build(attrs(4), u64(1<<63)),
		"a bitmap of 2^31 words":     u32(1 << 31),
	} {
		var a attributes
		r := xdr.NewReader(raw)
		a.read(&r)
		if r.Err() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSetAttributesInOrder(t *testing.T) {
	size, mode, uid, gid := int64(1<<33), uint32(0o600), uint32(36), uint32(37)
	got := appendAttrs(nil, remote.SetAttr{Size: &size, Mode: &mode, UID: &uid, GID: &gid}, true)
	want := build(attrs(4, 33, 36, 37, 48, 54), u64(1<<33), u32(0o600), xdr.AppendString(nil, "36"), xdr.AppendString(nil, "37"), u32(0), u32(0))
	if !bytes.Equal(got, want) {
		t.Errorf("%x\n%x", got, want)
	}
}

// everything are operations with every decoder of the package.
func everything() []operation {
	c := &Client{slots: slots{}}
	f := c.newFile("/f", remote.OpenOptions{Write: true})
	f.state.Store(new(stateID))
	var fh handle
	var a attributes
	var status uint32
	var got exchanged
	l := &listing{c: c}
	return []operation{
		&readOp{f: f, p: make([]byte, 4096)}, &writeOp{f: f, p: make([]byte, 4096)}, &commitOp{f: f},
		f.opening(claimFH), exchangeID(&owner{}, &got), createSession(1, 1, 1<<20, new(session)), reclaimComplete(),
		testStateID(stateID{}, &status), freeStateID(stateID{}), destroySession([16]byte{}), destroyClientID(1),
		f.allocation(opAllocate, 0, 1),
		&chain{steps: []step{putRoot(), lookup("a"), saveFH(), getFH(&fh), getAttr(openAttrs, &a)}},
		&chain{steps: []step{{op: opReadDir, result: func(r *results) { l.page(r) }}}},
		&chain{steps: []step{{op: opRename, result: func(r *results) { readChange(r); readChange(r) }}}},
	}
}

// Whatever a server answers, decoding ends, with an error or without.
func FuzzResults(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Add(append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 26, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, reply []byte) {
		for _, op := range everything() {
			var r results
			if r.begin(reply, 0) != nil {
				return
			}
			err := op.decode(&r)
			if err == nil && r.Err() != nil {
				t.Errorf("%T: malformed results were accepted", op)
			}
		}
		if at, n := (readPayload{}).Payload(reply); at < 0 || n < 0 || at > len(reply) {
			t.Errorf("payload at %d, %d bytes", at, n)
		}
	})
}

// callHeader is an ONC RPC call from the word after the xid on, with AUTH_NONE.
func callHeader(prog, vers, proc uint32) []byte {
	var b []byte
	for _, v := range []uint32{0, 2, prog, vers, proc, 0, 0, 0, 0} {
		b = xdr.AppendUint32(b, v)
	}
	return b
}

func sequenceCall(id [16]byte) []byte {
	b := append(u32(cbSequence), id[:]...)
	for _, v := range []uint32{7, 0, 0, 0, 0} { // sequence, slot, highest, cachethis, no referring calls
		b = xdr.AppendUint32(b, v)
	}
	return b
}

// compoundCall is a CB_COMPOUND.
func compoundCall(ops ...[]byte) []byte {
	b := append(callHeader(callbackProgram, 1, cbCompound), xdr.AppendString(nil, "tag")...)
	b = append(b, u32(1)...)
	b = append(b, u32(0)...)
	b = append(b, u32(uint32(len(ops)))...)
	return append(b, bytes.Join(ops, nil)...)
}

// callbackStatus reads the answer to a CB_COMPOUND.
func callbackStatus(t *testing.T, answer []byte) (status nfsstat.Status, results uint32) {
	t.Helper()
	r := xdr.NewReader(answer)
	if kind, stat, flavor, length, accept := r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32(); kind != 1 || stat != 0 ||
		flavor != 0 || length != 0 || accept != 0 {
		t.Fatalf("no accepted reply: %x", answer)
	}
	status = nfsstat.Status(r.Uint32())
	if tag := r.String(100); tag != "tag" {
		t.Errorf("tag %q", tag)
	}
	results = r.Uint32()
	if r.Err() != nil {
		t.Fatalf("malformed: %x", answer)
	}
	return status, results
}

func TestCallbacks(t *testing.T) {
	id := [16]byte{1, 2, 3}
	c := &Client{wake: make(chan struct{}, 1)}
	c.slots.init(newSlotCalls)
	s := &session{id: id, fore: channel{maxSlots: 8}}
	s.target.Store(7)
	c.current.Store(s)
	recall := append(append(u32(cbRecall), make([]byte, 16+4)...), xdr.AppendOpaque(nil, []byte("fh"))...)
	for _, tt := range []struct {
		name    string
		call    []byte
		status  nfsstat.Status
		results uint32
	}{
		{"sequence alone", compoundCall(sequenceCall(id)), nfsstat.OK, 1},
		{"another session's", compoundCall(sequenceCall([16]byte{9})), nfsstat.BadSession, 1},
		{"recall of what we do not have", compoundCall(sequenceCall(id), recall), nfsstat.BadStateID, 2},
		{"recall without sequence", compoundCall(recall), nfsstat.OpNotInSession, 1},
		{"sequence twice", compoundCall(sequenceCall(id), sequenceCall(id)), nfsstat.SequencePos, 2},
		{"recall any", compoundCall(sequenceCall(id), append(u32(cbRecallAny), append(u32(0), u32(0)...)...)), nfsstat.OK, 2},
		{"a layout recall", compoundCall(sequenceCall(id), u32(5)), nfsstat.NotSupp, 2},
		{"no operation", compoundCall(sequenceCall(id), u32(99)), nfsstat.OpIllegal, 2},
		{"fewer slots", compoundCall(sequenceCall(id), append(u32(cbRecallSlot), u32(2)...)), nfsstat.OK, 2},
	} {
		status, results := callbackStatus(t, c.answer(tt.call))
		if status != tt.status || results != tt.results {
			t.Errorf("%s: %v with %d results, want %v with %d", tt.name, status, results, tt.status, tt.results)
		}
	}
	if c.slots.granted != 3 {
		t.Errorf("%d slots are used after CB_RECALL_SLOT to 2", c.slots.granted)
	}
	if got := c.answer(callHeader(callbackProgram, 1, cbNull)); len(got) != 20 {
		t.Errorf("CB_NULL: %x", got)
	}
	if got := c.answer(callHeader(100003, 4, 1)); got != nil {
		t.Errorf("another program: %x", got)
	}
}

func FuzzCallback(f *testing.F) {
	f.Add(compoundCall(sequenceCall([16]byte{1})))
	c := &Client{wake: make(chan struct{}, 1)}
	c.slots.init(newSlotCalls)
	c.current.Store(&session{id: [16]byte{1}, fore: channel{maxSlots: 8}})
	f.Fuzz(func(t *testing.T, call []byte) {
		if got := c.answer(call); len(got) > 64<<10 {
			t.Errorf("%d bytes", len(got))
		}
	})
}

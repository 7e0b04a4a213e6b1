package blocktest

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"sluice/block"
)

// checkBuffers looks at who may touch a request's buffer and when.
func checkBuffers(p *probe) {
	for _, skew := range []int64{0, 1, 3, 512} { // addresses that suit O_DIRECT, and that do not
		for _, n := range []int64{p.unit, p.block, min(8*p.block, step(p.info, p.win))} {
			p.writeLeavesBuffer(skew, n)
			p.readStaysInside(skew, n)
		}
	}
	p.buffersForgotten()
}

// writeLeavesBuffer: WriteAt does not change p, not even in passing (under -race
// the reader beside it would tell).
func (p *probe) writeLeavesBuffer(skew, n int64) {
	p.t.Helper()
	room := pattern(skew+n, skew+n+64)
	before := bytes.Clone(room)
	data := room[skew : skew+n]
	var reader sync.WaitGroup
	reader.Go(func() { _ = bytes.Equal(room, before) })
	err := p.dev.WriteAt(background, data, 0, 0)
	reader.Wait()
	p.ok(err, fmt.Sprintf("write of %d bytes from an address %d off", n, skew))
	same(p.t, room, before, 0, "the buffer of a write")
	p.expect(0, before[skew:skew+n], "the write itself")
}

// readStaysInside: ReadAt fills p and nothing around it, whatever its capacity.
func (p *probe) readStaysInside(skew, n int64) {
	p.t.Helper()
	room := bytes.Repeat([]byte{0xa5}, int(skew+n+64))
	want := bytes.Clone(room)
	copy(want[skew:], p.read(0, n))
	p.ok(p.dev.ReadAt(background, room[skew:skew+n], 0), "read")
	same(p.t, room, want, 0, "the surroundings of a read's buffer")
}

// buffersForgotten: what happens to a buffer after the call returned is not
// seen by the Device, and the Device does not come back to it.
func (p *probe) buffersForgotten() {
	p.t.Helper()
	const count = 16
	n := min(p.block, p.win/count)
	var all []byte
	buf := make([]byte, n)
	kept := make([]byte, n)
	p.ok(p.dev.ReadAt(background, kept, 0), "read")
	for i := range int64(count) {
		copy(buf, pattern(300+i, n))
		all = append(all, buf...)
		p.ok(p.dev.WriteAt(background, buf, i*n, 0), "write")
		for j := range buf {
			buf[j] = 0xdb
		}
	}
	for j := range kept {
		kept[j] = 0xdb
	}
	p.expect(0, all, "writes whose buffers were overwritten after their return")
	p.ok(p.dev.Flush(background), "flush")
	p.expect(0, all, "the same after a flush")
	same(p.t, kept, bytes.Repeat([]byte{0xdb}, int(n)), 0, "the buffer of an earlier read")
	same(p.t, buf, bytes.Repeat([]byte{0xdb}, int(n)), 0, "the buffer of an earlier write")
}

// checkCancelInFlight cancels writes while they run, overwrites their buffers
// when they have returned, writes other content, and expects that to stay.
func checkCancelInFlight(p *probe) {
	rng := p.rand(1, 2)
	buf := make([]byte, p.block)
	for round := range int64(50) {
		ctx, cancel := context.WithCancel(context.Background())
		var canceler sync.WaitGroup
		spin := rng.IntN(2000)
		canceler.Go(func() {
			for range spin {
				_ = ctx.Err()
			}
			cancel()
		})
		copy(buf, pattern(round, p.block))
		if err := p.dev.WriteAt(ctx, buf, 0, 0); err != nil {
			p.kinds(err, "cancelled write", block.Canceled)
		}
		for i := range buf {
			buf[i] = 0xdb
		}
		canceler.Wait()
		p.write(0, pattern(1000+round, p.block))
		p.expect(0, pattern(1000+round, p.block), "the write after a cancelled one")
		p.cancelledRead(rng.IntN(2000))
	}
	p.expect(0, pattern(1049, p.block), "the last write, when all was quiet")
}

// cancelledRead: a read that gave up no longer touches its buffer.
func (p *probe) cancelledRead(spin int) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var canceler sync.WaitGroup
	canceler.Go(func() {
		for range spin {
			_ = ctx.Err()
		}
		cancel()
	})
	buf := make([]byte, p.block)
	if err := p.dev.ReadAt(ctx, buf, 0); err != nil {
		p.kinds(err, "cancelled read", block.Canceled)
	}
	for i := range buf {
		buf[i] = 0xdb
	}
	canceler.Wait()
	p.expect(p.block, p.read(p.block, p.block), "another read")
	same(p.t, buf, bytes.Repeat([]byte{0xdb}, len(buf)), 0, "the buffer of a cancelled read")
}

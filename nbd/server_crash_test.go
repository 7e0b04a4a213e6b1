package nbd_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"sluice/block/blocktest"
)

// TestServerPowerCut writes over several connections to a device that loses its
// power after some change and keeps only what it must: all that was answered
// with FUA, or before a flush was sent, is there.
func TestServerPowerCut(t *testing.T) {
	const blockSize, blocks, clients = 2048, 256, 3
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		dev := blocktest.NewCrashDevice(blockSize*blocks, 512)
		dev.CrashAt(rng.IntN(blocks))
		s := serveDevice(t, dev)
		promised := make([]map[int]byte, clients)
		var wg sync.WaitGroup
		for i := range clients {
			c := enter(t, s.addr, allModes[i], "")
			wg.Go(func() { promised[i] = c.writeDurably(i, clients, blocks, blockSize) })
		}
		wg.Wait()
		if !dev.Crashed() {
			t.Fatal("the power stayed on")
		}
		after, p := dev.Crash(rng), make([]byte, blockSize)
		for _, m := range promised {
			for b, fill := range m {
				if err := after.ReadAt(context.Background(), p, int64(b*blockSize)); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(p, bytes.Repeat([]byte{fill}, blockSize)) {
					t.Errorf("seed %d: block %d was promised and is lost", seed, b)
				}
			}
		}
	}
}

// writeDurably writes every step-th block from first on, each once, some with
// FUA and the others followed by a flush now and then, until something fails. It
// returns what was promised.
func (c *rawClient) writeDurably(first, step, blocks, size int) map[int]byte {
	promised, waiting := make(map[int]byte), make(map[int]byte)
	for b := first; b < blocks; b += step {
		fill := byte(1 + b%255)
		req := rawRequest{cmd: rCmdWrite, offset: uint64(b * size), payload: bytes.Repeat([]byte{fill}, size)}
		if b%4 == 0 {
			req.flags = rFlagFUA
		}
		if c.do(req).err != 0 {
			return promised
		}
		if waiting[b] = fill; b%4 == 0 {
			promised[b] = fill
		}
		if b%5 != 0 {
			continue
		}
		if c.flush().err != 0 {
			return promised
		}
		for b, fill := range waiting {
			promised[b] = fill
		}
	}
	return promised
}

package metrics

import (
	"math"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/block"
	"sluice/nbd"
)

// TestTallyModel compares with plain additions, on requests that fill every
// field of the packed words to its limit and beyond.
func TestTallyModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := New(Build{}).Export("x")
		var want snapshot
		for range rapid.IntRange(1, 30).Draw(t, "batches") {
			took := time.Duration(rapid.OneOf(
				rapid.Int64Range(-5, 1<<20),
				rapid.Int64Range(1<<nanosBits-2, 1<<nanosBits+2),
				rapid.Int64Range(1<<40, 1<<41),
			).Draw(t, "took"))
			bytes := rapid.OneOf(
				rapid.Int64Range(-1, 1<<16),
				rapid.Int64Range(1<<bytesBits-2, 1<<bytesBits+2),
				rapid.Int64Range(1<<40, 1<<41),
			).Draw(t, "bytes")
			kind := block.OK
			if rapid.IntRange(0, 9).Draw(t, "fails") == 0 {
				kind = block.Kind(rapid.IntRange(1, numKinds+2).Draw(t, "kind"))
			}
			times := rapid.SampledFrom([]int{1, 2, 1<<countBits - 1, 1 << countBits, 3000}).Draw(t, "times")
			o := e.nbd.shards[rapid.IntRange(0, len(e.nbd.shards)-1).Draw(t, "shard")]
			for range times {
				o.Request(nbd.OpWrite, bytes, took, kind)
			}
			n := uint64(times)
			want.counts[bucketOf(took)] += n
			want.nanos += n * uint64(max(took, 0))
			want.bytes += n * uint64(max(bytes, 0))
			if kind != block.OK {
				want.errors[kindSlot(kind)] += n
			}
		}
		if got := e.ours(nbd.OpWrite).snapshot; got != want {
			t.Fatalf("count %d nanos %d bytes %d errors %v, want %d %d %d %v", got.count(), got.nanos, got.bytes,
				got.errors, want.count(), want.nanos, want.bytes, want.errors)
		}
	})
}

// TestFullWord fills each field of a word up to its last bit, and one further.
func TestFullWord(t *testing.T) {
	for _, c := range []struct {
		name         string
		nanos, bytes uint64
		fit          int // how often that can be added
	}{
		{"count", 0, 0, 1<<countBits - 1},
		{"nanos", 1<<nanosBits - 1, 0, 1},
		{"half nanos", 1 << (nanosBits - 1), 0, 1},
		{"quarter nanos", 1 << (nanosBits - 2), 0, 3},
		{"bytes", 0, 1<<bytesBits - 1, 1},
		{"half bytes", 0, 1 << (bytesBits - 1), 1},
		{"all", 1<<nanosBits - 1, 1<<bytesBits - 1, 1},
		{"too long", 1 << nanosBits, 0, 0},
		{"too large", 0, 1 << bytesBits, 0},
		{"far too large", 0, math.MaxUint64, 0},
	} {
		k := &counter{total: &tally{}}
		fit := 0
		for k.add(1, c.nanos, c.bytes) {
			fit++
		}
		if fit != c.fit {
			t.Errorf("%s: fits %d times, want %d", c.name, fit, c.fit)
		}
		var s snapshot
		s.addWord(1, k.words[1].Load())
		if n := uint64(fit); s.counts[1] != n || s.nanos != n*c.nanos || s.bytes != n*c.bytes {
			t.Errorf("%s: after %d times: count %d, nanos %d, bytes %d", c.name, fit, s.counts[1], s.nanos, s.bytes)
		}
	}
}

// TestScrapeWhileCounting reads while eight goroutines count: count, sum, bytes
// and errors agree in every snapshot, nothing goes back, nothing is lost.
func TestScrapeWhileCounting(t *testing.T) {
	const workers, each = 8, 40_000
	const size, took = 1 << 20, 100 * time.Microsecond
	e := New(Build{}).Export("x")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			o := nbd.Observer(e.nbd.shards[w%len(e.nbd.shards)]) // several to a shard
			for i := range each {
				kind := block.OK
				if i%100 == 0 {
					kind = block.IO
				}
				o.Request(nbd.OpRead, size, took, kind)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var last uint64
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		s := e.ours(nbd.OpRead).snapshot
		n := s.count()
		if s.bytes != n*size || s.nanos != n*uint64(took) {
			t.Fatalf("count %d, but bytes for %d and time for %d", n, s.bytes/size, s.nanos/uint64(took))
		}
		if n < last || s.errors[block.IO] > n {
			t.Fatalf("count %d after %d, errors %d", n, last, s.errors[block.IO])
		}
		last = n
	}
	if last != workers*each {
		t.Fatalf("count %d, want %d", last, workers*each)
	}
}

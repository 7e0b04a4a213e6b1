package metrics

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
)

// Stages of counting a request, in order:
//
//  1. bucketOf finds the bucket of its duration.
//  2. counter.add adds it to the bucket's packed word: count, nanoseconds and
//     bytes at once, by one compare-and-swap.
//  3. When a field of the word would overflow, or the request failed,
//     counter.spill moves the word's contents and the request into the wide
//     counters of the tally, under its mutex.
//  4. tally.snapshot, for a scrape, sums wide counters and words.
//
// Count, sum and bytes of a snapshot always agree with each other: a word
// changes in one step, and moving it happens under the mutex that the snapshot
// holds. For the same reason no counter ever seems to go backwards.

// The fields of a packed word. A word is moved at the latest after 1023
// requests, 67 ms of time or 256 MiB, whichever comes first; one request beyond
// that goes straight to the wide counters. In each case the time that the move
// costs (some 50 ns) is far below a hundredth of what it stands for.
const (
	countBits = 10
	nanosBits = 26
	bytesBits = 28

	nanosShift = countBits
	bytesShift = countBits + nanosBits

	// carries are the bits that a field's overflow would carry into; the
	// overflow of the uppermost field leaves the word instead.
	carries = 1<<nanosShift | 1<<bytesShift
)

// counter holds the packed words of one operation in one shard. It fills a size
// class of whole cache lines, 4 KiB, so no two of them have a line in common.
type counter struct {
	words [numBuckets]atomic.Uint64
	total *tally
}

// tally holds the wide counters of one operation of an export, and knows the
// counters of the shards in which it was used.
type tally struct {
	mu sync.Mutex // guards all below, but not the words of counters
	snapshot
	counters []*counter
}

// snapshot is the state of a tally at one moment.
type snapshot struct {
	counts [numBuckets]uint64
	nanos  uint64
	bytes  uint64
	errors [numKinds + 1]uint64
}

// add counts a request that worked, unless its word has no room for it: then it
// returns false, and nothing has been counted.
func (c *counter) add(bucket int, nanos, bytes uint64) bool {
	if nanos >= 1<<nanosBits || bytes >= 1<<bytesBits {
		return false
	}
	delta := 1 | nanos<<nanosShift | bytes<<bytesShift
	word := &c.words[bucket]
	for {
		old := word.Load()
		sum := old + delta
		if (old^delta^sum)&carries != 0 || sum < old {
			return false
		}
		if word.CompareAndSwap(old, sum) {
			return true
		}
	}
}

// spill counts a request of any size and outcome, and empties its word.
func (c *counter) spill(bucket int, nanos, bytes uint64, kind block.Kind) {
	t := c.total
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addWord(bucket, c.words[bucket].Swap(0))
	t.counts[bucket]++
	t.nanos += nanos
	t.bytes += bytes
	if kind != block.OK {
		t.errors[kindSlot(kind)]++
	}
}

// addWord adds the fields of a packed word.
func (s *snapshot) addWord(bucket int, word uint64) {
	s.counts[bucket] += word & (1<<countBits - 1)
	s.nanos += word >> nanosShift & (1<<nanosBits - 1)
	s.bytes += word >> bytesShift
}

// read gives everything counted so far.
func (t *tally) read(s *snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*s = t.snapshot
	for _, c := range t.counters {
		for i := range c.words {
			if word := c.words[i].Load(); word != 0 {
				s.addWord(i, word)
			}
		}
	}
}

// count is the number of requests in all buckets.
func (s *snapshot) count() (n uint64) {
	for _, c := range s.counts {
		n += c
	}
	return n
}

// seconds is the sum of all durations.
func (s *snapshot) seconds() float64 { return float64(s.nanos) / float64(time.Second) }

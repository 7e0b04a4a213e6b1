package metrics

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"sluice/block"
	"sluice/nbd"
)

func TestShardsAreSpread(t *testing.T) {
	e := New(Build{}).Export("x")
	seen := make(map[nbd.Observer]int)
	for range 3 * len(e.nbd.shards) {
		o := e.Shard()
		o.Connection(1)
		seen[o]++
	}
	for _, n := range seen {
		if n != 3 {
			t.Errorf("a shard has %d connections, want 3", n)
		}
	}
	if len(seen) != len(e.nbd.shards) || len(e.nbd.shards) != min(runtime.GOMAXPROCS(0), maxShards) {
		t.Errorf("%d of %d shards used", len(seen), len(e.nbd.shards))
	}
	last := e.nbd.shards[len(e.nbd.shards)-1]
	last.Connection(-1)
	if e.Shard() != nbd.Observer(last) {
		t.Error("the shard with the fewest connections was not chosen")
	}
}

func TestFirstRequestsAtOnce(t *testing.T) {
	for range 50 {
		e := New(Build{}).Export("x")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { e.Request(nbd.OpZero, 7, 1, block.OK) })
		}
		wg.Wait()
		if s := e.ours(nbd.OpZero).snapshot; s.count() != 8 || s.bytes != 56 {
			t.Fatalf("count %d, bytes %d", s.count(), s.bytes)
		}
	}
}

// TestClose closes an export while it is used and scraped, and makes a namesake.
func TestClose(t *testing.T) {
	r := New(Build{})
	old := r.Export("disk")
	if r.Export("disk") != old {
		t.Fatal("the same name gave two exports")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				old.Request(nbd.OpRead, 512, time.Millisecond, block.OK)
				old.Connection(1)
				old.InFlight(nbd.OpRead, 1)
				old.SetInfo(block.Info{Size: 1})
			}
		}
	})
	for range 20 {
		_ = text(t, r)
	}
	old.Close()
	if s := text(t, r); strings.Contains(s, `export="disk"`) {
		t.Errorf("a closed export is still there:\n%s", s)
	}
	fresh := r.Export("disk")
	old.Close() // must not take the namesake away
	close(stop)
	wg.Wait()
	if r.Export("disk") != fresh || fresh == old {
		t.Error("closing the old export again took the new one away")
	}
	if s := text(t, r); !strings.Contains(s, `sluice_connections_total{export="disk"} 0`) {
		t.Errorf("the new export does not begin at 0:\n%s", s)
	}
}

// TestHostileNames: no name may break the exposition for all others.
func TestHostileNames(t *testing.T) {
	r := New(Build{Version: "v\xff"})
	names := []string{"", "a\"b\\c\nd", "\xff\xfe", "{}", strings.Repeat("n", 4096), "ü\x00"}
	for _, n := range names {
		r.Export(n).Request(nbd.OpFlush, 0, 1, block.OK)
	}
	r.Export("\xfe\xff").Request(nbd.OpFlush, 0, 1, block.OK) // looks like the third
	families, err := r.prom.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "sluice_requests_total" })
	if got := len(families[i].GetMetric()); got != len(names) {
		t.Errorf("%d exports shown, want %d", got, len(names))
	}
}

func TestNoAllocations(t *testing.T) {
	e := New(Build{}).Export("x")
	o := e.Shard()
	n := testing.AllocsPerRun(20_000, func() {
		o.InFlight(nbd.OpRead, 1)
		o.Request(nbd.OpRead, 4096, 4*time.Microsecond, block.OK)
		o.Request(nbd.OpWrite, 1<<30, time.Hour, block.OK)
		o.Request(nbd.OpFlush, 0, time.Millisecond, block.IO)
		o.InFlight(nbd.OpRead, -1)
	})
	if n != 0 {
		t.Errorf("%v allocations per request, want 0", n)
	}
}

// TestMemory bounds what exports cost that are idle, or have one connection.
func TestMemory(t *testing.T) {
	const n = 1000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	r := New(Build{})
	exports := make([]*Export, n)
	before := heap()
	for i := range exports {
		exports[i] = r.Export(strconv.Itoa(i))
	}
	idle := heap()
	if each := (idle - before) / n; each > 4<<10 {
		t.Errorf("an idle export takes %d bytes, want 4 KiB at most", each)
	}
	for _, e := range exports {
		e.Request(nbd.OpRead, 1, 1, block.OK)
	}
	if each := (heap() - idle) / n; each > 10<<10 {
		t.Errorf("an operation takes %d bytes, want 10 KiB at most", each)
	}
	runtime.KeepAlive(exports)
}

// durations are what a disk in the page cache might take, to visit some buckets.
var durations = func() (d [256]time.Duration) {
	for i := range d {
		d[i] = 3*time.Microsecond + time.Duration(i*i)*time.Nanosecond
	}
	return d
}()

func BenchmarkRequest(b *testing.B) {
	o := New(Build{}).Export("x").Shard()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		o.Request(nbd.OpRead, 4096, durations[i%len(durations)], block.OK)
	}
}

func BenchmarkRequestFailed(b *testing.B) {
	o := New(Build{}).Export("x").Shard()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		o.Request(nbd.OpRead, 4096, durations[i%len(durations)], block.IO)
	}
}

func BenchmarkInFlight(b *testing.B) {
	o := New(Build{}).Export("x").Shard()
	for b.Loop() {
		o.InFlight(nbd.OpRead, 1)
		o.InFlight(nbd.OpRead, -1)
	}
}

// BenchmarkRequest8 has eight goroutines, each with the shard of a connection
// of its own, and all on one shard.
func BenchmarkRequest8(b *testing.B) {
	run := func(b *testing.B, shard func(*Export) nbd.Observer) {
		e := New(Build{}).Export("x")
		b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			o := shard(e)
			o.Connection(1)
			for i := 0; p.Next(); i++ {
				o.Request(nbd.OpRead, 4096, durations[i%len(durations)], block.OK)
			}
		})
	}
	b.Run("sharded", func(b *testing.B) { run(b, (*Export).Shard) })
	b.Run("shared", func(b *testing.B) { run(b, func(e *Export) nbd.Observer { return e }) })
}

func BenchmarkScrape(b *testing.B) {
	r := New(Build{})
	for i := range 100 {
		e := r.Export(string(rune('a' + i)))
		for op := range nbd.Op(3) {
			for _, d := range durations {
				e.Request(op, 4096, d, block.OK)
			}
		}
	}
	for b.Loop() {
		if _, err := r.prom.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

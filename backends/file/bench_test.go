package file

import (
	"errors"
	"testing"

	"sluice/block"
	"sluice/block/buffer"
)

func alignedBytes(n int) []byte { return buffer.Get(n).B }

func benchmark(b *testing.B, n int, f func(d *Device, p []byte, off int64) error) {
	const size = 64 << 20
	d := openFile(b, newFile(b, b.TempDir(), size), block.OpenOptions{})
	b.Cleanup(func() { _ = d.Close() })
	p := alignedBytes(1 << 20)
	for off := int64(0); off < size; off += 1 << 20 {
		if err := d.WriteAt(ctx, p, off, 0); err != nil {
			b.Fatal(err)
		}
	}
	p = p[:n]
	b.SetBytes(int64(n))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if err := f(d, p, off); err != nil {
			b.Fatal(err)
		}
		off = (off + int64(n)) % size
	}
}

func BenchmarkRead4K(b *testing.B) {
	benchmark(b, 4096, func(d *Device, p []byte, off int64) error { return d.ReadAt(ctx, p, off) })
}

func BenchmarkNowait4K(b *testing.B) {
	benchmark(b, 4096, func(d *Device, p []byte, off int64) error { return d.ReadNowait(p, off) })
}

func BenchmarkRead1M(b *testing.B) {
	benchmark(b, 1<<20, func(d *Device, p []byte, off int64) error { return d.ReadAt(ctx, p, off) })
}

func BenchmarkWrite4K(b *testing.B) {
	benchmark(b, 4096, func(d *Device, p []byte, off int64) error { return d.WriteAt(ctx, p, off, 0) })
}

// BenchmarkPin is what it costs to ask whether sending the range would wait.
func BenchmarkPin4K(b *testing.B)   { benchmark(b, 4096, pin) }
func BenchmarkPin128K(b *testing.B) { benchmark(b, 128<<10, pin) }
func BenchmarkPin1M(b *testing.B)   { benchmark(b, 1<<20, pin) }

func pin(d *Device, p []byte, off int64) error {
	r, ok := d.PinRange(off, int64(len(p)))
	if !ok || !r.Resident {
		return errors.New("not in memory")
	}
	d.UnpinRange(r)
	return nil
}

// BenchmarkCounted is the part of it that cachestat has.
func BenchmarkCounted128K(b *testing.B) {
	benchmark(b, 128<<10, func(d *Device, p []byte, off int64) error {
		if held, known := d.counted(off, int64(len(p))); held != known {
			return errors.New("not in memory")
		}
		return nil
	})
}

package imagecopy

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
)

// storage is RAM that copies by itself, as far as the test lets it.
type storage struct {
	*mem.Device
	clone  error
	budget atomic.Int64 // how many bytes CopyRange does before it fails
	err    error        // with this
	step   int64        // longest that it does at a time
	asked  atomic.Int64
}

func (s *storage) Info() block.Info {
	info := s.Device.Info()
	info.Caps |= block.CapCopy
	return info
}

func (s *storage) CloneRange(ctx context.Context, from block.Device, fromOff, off, n int64) error {
	if s.clone != nil {
		return s.clone
	}
	return s.move(ctx, from, fromOff, off, n)
}

func (s *storage) move(ctx context.Context, from block.Device, fromOff, off, n int64) error {
	p := make([]byte, n)
	return errors.Join(from.ReadAt(ctx, p, fromOff), s.WriteAt(ctx, p, off, 0))
}

func (s *storage) CopyRange(ctx context.Context, from block.Device, fromOff, off, n int64) (int64, error) {
	s.asked.Add(1)
	n = min(n, s.step)
	if s.budget.Add(-n) < 0 {
		return 0, s.err
	}
	return n, s.move(ctx, from, fromOff, off, n)
}

func unsupported() error { return block.Errorf(block.Unsupported, "copy", "", -1, "") }

// offloaded copies an image that has data, zeroes and data to a storage.
func offloaded(t *testing.T, dst *storage, opts Options) (r Result, told int64, same bool, err error) {
	t.Helper()
	const size = 3 << 20
	src, newErr := mem.New(size)
	var dstErr error
	dst.Device, dstErr = mem.New(size)
	if err := errors.Join(newErr, dstErr); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(src.Close(), dst.Close()) }()
	want := make([]byte, size)
	for i := range want {
		if i < 1<<20 || i >= 2<<20 {
			want[i] = byte(i*7/5) | 1
		}
	}
	for _, off := range []int64{0, 2 << 20} {
		if err := src.WriteAt(t.Context(), want[off:off+1<<20], off, 0); err != nil {
			t.Fatal(err)
		}
	}
	var sum atomic.Int64
	opts.Progress = func(n int64) { sum.Add(n) }
	r, err = Copy(t.Context(), dst, src, opts)
	got := make([]byte, size)
	if e := dst.ReadAt(t.Context(), got, 0); e != nil {
		t.Fatal(e)
	}
	return r, sum.Load(), bytes.Equal(got, want), err
}

func TestTheStorageCopies(t *testing.T) {
	all := int64(1 << 40)
	for name, c := range map[string]struct {
		clone  error
		budget int64
		step   int64
		opts   Options
		calls  int64
	}{
		"clone":                   {nil, 0, all, Options{}, 0},
		"copy":                    {unsupported(), all, all, Options{}, 2},
		"copy in steps":           {unsupported(), all, 100_000, Options{}, 22},
		"not after all":           {unsupported(), 0, all, Options{Requests: 1}, 1},
		"a part":                  {unsupported(), 300_000, 100_000, Options{Requests: 1}, 4},
		"not without extents":     {unsupported(), all, all, Options{IgnoreExtents: true}, 1},
		"space for zeroes, too":   {nil, all, all, Options{Allocate: true}, 2},
		"the destination is zero": {unsupported(), all, all, Options{DestinationZero: true}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			dst := &storage{clone: c.clone, step: c.step, err: unsupported()}
			dst.budget.Store(c.budget)
			r, told, same, err := offloaded(t, dst, c.opts)
			if err != nil || !same || r.Copied() != 3<<20 || told != 3<<20 || !r.Begun {
				t.Errorf("%+v, %d bytes told, the same: %v, %v", r, told, same, err)
			}
			if got := dst.asked.Load(); got != c.calls {
				t.Errorf("%d calls, want %d", got, c.calls)
			}
		})
	}
}

func TestTheStorageFails(t *testing.T) {
	broken := block.Errorf(block.NoSpace, "copy", "b.img", -1, "")
	dst := &storage{clone: broken}
	if r, _, _, err := offloaded(t, dst, Options{}); block.KindOf(err) != block.NoSpace || r.Copied() != 0 || !r.Begun {
		t.Errorf("%+v, %v", r, err)
	}
	dst = &storage{clone: unsupported(), step: 1 << 19, err: broken}
	dst.budget.Store(1 << 19)
	r, told, _, err := offloaded(t, dst, Options{Requests: 1})
	if block.KindOf(err) != block.NoSpace || r.Data != 1<<19 || told != r.Copied() {
		t.Errorf("%+v, %d, %v", r, told, err)
	}
}

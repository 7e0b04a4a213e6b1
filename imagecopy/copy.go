package imagecopy

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sluice/block"
	"sluice/block/buffer"
)

// What happens to the bytes, in this order:
//
//  1. plan (plan.go): walk the source's extents and cut them into jobs: data of
//     at most a request's size, zeroes of any size.
//  2. worker: read a data job into the worker's buffer.
//  3. runs (zeroes.go): part it into runs of data and of zeroes.
//  4. write the data; make the zeroes zero, or leave them as they are where
//     the destination is known to be so.
//
// Where the storage can copy by itself (offload.go), it is asked to share the whole
// image first, and then to copy the jobs of data, which are longer; 2 to 4 are for what
// it cannot do.
//
// At the end, flush the destination, once: here, or in the Commit of the Stage
// that it belongs to.

// Options shape a Copy. The zero value of each means its default.
type Options struct {
	// Requests is how many reads or writes are in flight at once. Default 16,
	// and 4 between local files, where more only contend for the file's lock.
	Requests int
	// RequestSize is the longest read and write in bytes, a multiple of 4096.
	// Default 512 KiB.
	RequestSize int

	// Grain is the shortest run of zeroes inside data that is treated as such,
	// in bytes, a multiple of 512. Default: 4096 or the destination's
	// preferred block size (up to 64 KiB), whichever is more. Negative: zeroes
	// inside data are copied like data.
	Grain int64
	// IgnoreExtents reads all of the source, whatever it says of its extents.
	IgnoreExtents bool

	// DestinationZero says that the destination reads as zeroes everywhere, so
	// that zeroes need not be written.
	DestinationZero bool
	// Allocate gives zeroes space in the destination too.
	Allocate bool

	// NoFlush leaves the flush at the end to the caller: to Stage.Commit, which
	// flushes in any case.
	NoFlush bool

	// Progress, when set, is told of every piece that is done; it is called by
	// many goroutines at once.
	Progress func(bytes int64)
}

const (
	defaultRequests    = 16
	localRequests      = 4
	defaultRequestSize = 512 << 10
	maxRequestSize     = 32 << 20
	leastGrain         = 4096
	mostGrain          = 64 << 10
)

// Result counts the bytes of the source by what became of them. After a failure
// it counts what was done until then.
type Result struct {
	Data    int64 // written as data
	Zeroed  int64 // made zero in the destination
	Skipped int64 // zeroes that the destination had already

	// Begun says that something was written to the destination, or at least
	// tried: a write that failed, or that an interrupt cut off, may have changed
	// some of its bytes and is counted above as none.
	Begun bool
}

// Copied is the number of bytes that the destination has as they should be.
func (r Result) Copied() int64 { return r.Data + r.Zeroed + r.Skipped }

// copier is a Copy in progress.
type copier struct {
	src, dst *block.Resolved
	size     int64
	opts     Options
	grain    int64       // 0: do not look for zeroes
	align    int64       // of jobs
	piece    int64       // the longest job of data
	offload  atomic.Bool // the storage is asked to copy

	data, zeroed, skipped atomic.Int64
	begun                 atomic.Bool // a write was sent off
}

// Copy makes the first bytes of dst those of src and flushes dst, so that they are
// durable, unless the options say that the caller does so. dst must be at
// least as large as src, which is checked before anything is written; what it
// has beyond that stays as it is. When Copy fails, dst holds a mixture. A
// destination whose Block.Min does not divide the source's size is refused with
// Invalid (a filter around it helps).
func Copy(ctx context.Context, dst, src block.Device, opts Options) (Result, error) {
	c := &copier{src: block.Resolve(src), dst: block.Resolve(dst), size: src.Info().Size, opts: opts}
	if err := c.prepare(); err != nil {
		return Result{}, err
	}
	done, err := c.clone(ctx)
	if !done && err == nil {
		err = c.run(ctx)
	}
	if err == nil && !opts.NoFlush {
		err = block.Wrap(dst.Flush(ctx), "flush", "the destination", -1)
	}
	return Result{Data: c.data.Load(), Zeroed: c.zeroed.Load(), Skipped: c.skipped.Load(), Begun: c.begun.Load()}, err
}

// prepare checks the options against the devices and fills in defaults.
func (c *copier) prepare() error {
	o, from, to := &c.opts, c.src.Info, c.dst.Info
	if o.Requests == 0 {
		o.Requests = defaultRequests
		if from.Has(block.CapFileRange) && to.Has(block.CapSerialWrites) {
			o.Requests = localRequests
		}
	}
	if o.RequestSize == 0 {
		o.RequestSize = defaultRequestSize
	}
	switch {
	case to.ReadOnly:
		return block.Errorf(block.ReadOnly, "copy", "", -1, "the destination is read-only")
	case to.Size < from.Size:
		return block.Errorf(block.NoSpace, "copy", "", -1, "the destination has %d bytes, the source %d", to.Size, from.Size)
	case o.Requests < 0 || o.RequestSize < leastGrain || o.RequestSize%leastGrain != 0 || o.RequestSize > maxRequestSize:
		return fmt.Errorf("copy: %d requests of %d bytes: %w", o.Requests, o.RequestSize, block.Invalid)
	}
	c.align = max(leastGrain, from.Block.Min, to.Block.Min)
	limit := int64(o.RequestSize)
	for _, most := range []int64{from.Block.Max, to.Block.Max} {
		if most > 0 {
			limit = min(limit, most)
		}
	}
	o.RequestSize = int(max(limit&^(c.align-1), c.align))
	c.piece = int64(o.RequestSize)
	if c.dst.Copier != nil {
		c.offload.Store(true)
		c.piece = max(c.piece, offloadPiece)
	}
	if from.Size%max(to.Block.Min, 1) != 0 {
		return block.Errorf(block.Invalid, "copy", "", -1, "%d bytes do not fill whole blocks of %d", from.Size, to.Block.Min)
	}
	switch {
	case o.Grain == 0:
		c.grain = max(leastGrain, min(to.Block.Preferred, mostGrain))
	case o.Grain > 0:
		c.grain = o.Grain
	}
	if c.grain > 0 {
		c.grain = max(c.grain, to.Block.Min)
	}
	return nil
}

// run starts planner and workers and waits for them.
func (c *copier) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	jobs := make(chan job, c.opts.Requests)
	g.Go(func() error {
		defer close(jobs)
		return c.plan(ctx, jobs)
	})
	for range c.opts.Requests {
		g.Go(func() error { return c.work(ctx, jobs) })
	}
	return g.Wait()
}

// work does jobs until there are no more.
func (c *copier) work(ctx context.Context, jobs <-chan job) error {
	var b *buffer.Buffer
	defer func() {
		if b != nil {
			b.Release()
		}
	}()
	for j := range jobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if j.zero {
			if err := c.zero(ctx, j.off, j.n); err != nil {
				return err
			}
			continue
		}
		n, err := c.copyInside(ctx, j)
		if err != nil {
			return err
		}
		if n < j.n && b == nil {
			b = buffer.Get(c.opts.RequestSize)
		}
		for ; n < j.n; n += int64(len(b.B)) {
			part := job{off: j.off + n, n: min(j.n-n, int64(len(b.B)))}
			if err := c.move(ctx, part, b.B[:part.n]); err != nil {
				return err
			}
		}
	}
	return nil
}

// move copies one job of data through p.
func (c *copier) move(ctx context.Context, j job, p []byte) error {
	if err := c.src.ReadAt(ctx, p, j.off); err != nil {
		return block.Wrap(err, "read", "the source", j.off)
	}
	wrote := false
	for off := j.off; len(p) > 0; {
		n, zero := nextRun(p, c.grain)
		var err error
		if zero {
			err = c.zero(ctx, off, int64(n))
		} else {
			wrote, err = true, c.write(ctx, p[:n], off)
		}
		if err != nil {
			return block.Wrap(err, "write", "the destination", off)
		}
		p, off = p[n:], off+int64(n)
	}
	if wrote {
		c.writeBack(j.off, j.n)
	}
	return nil
}

// write makes a range of the destination p.
func (c *copier) write(ctx context.Context, p []byte, off int64) error {
	c.begin()
	if err := c.dst.WriteAt(ctx, p, off, 0); err != nil {
		return err
	}
	c.done(&c.data, int64(len(p)))
	return nil
}

// zero makes a range of the destination read as zeroes.
func (c *copier) zero(ctx context.Context, off, n int64) error {
	if c.opts.DestinationZero && !c.opts.Allocate {
		c.done(&c.skipped, n)
		return nil
	}
	flags := block.MayUnmap
	if c.opts.Allocate {
		flags = 0
	}
	c.begin()
	if err := c.dst.ZeroRange(ctx, off, n, flags); err != nil {
		return block.Wrap(err, "zero", "the destination", off)
	}
	c.done(&c.zeroed, n)
	return nil
}

// begin notes that the destination is no longer what it was. Most calls only
// look, so that the workers share the flag's cache line.
func (c *copier) begin() {
	if !c.begun.Load() {
		c.begun.Store(true)
	}
}

// done counts bytes.
func (c *copier) done(counter *atomic.Int64, n int64) {
	counter.Add(n)
	if c.opts.Progress != nil {
		c.opts.Progress(n)
	}
}

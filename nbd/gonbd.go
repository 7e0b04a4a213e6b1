package nbd

import (
	"context"
	"errors"
	"io"

	"github.com/pojntfx/go-nbd/pkg/backend"

	"sluice/block"
	"sluice/block/gate"
)

// FromGoNBD makes a block.Device of a backend written for
// github.com/pojntfx/go-nbd, so that this package's server can serve it. The
// size is read once. Flush calls Sync. A backend has no Close of its own: where it
// is an io.Closer, closing the Device closes it.
func FromGoNBD(b backend.Backend) (block.Device, error) {
	size, err := b.Size()
	if err != nil {
		return nil, block.Wrap(err, "open", "go-nbd backend", -1)
	}
	if size < 0 {
		return nil, block.Errorf(block.Invalid, "open", "go-nbd backend", -1, "size %d", size)
	}
	return &goNBD{backend: b, info: block.Info{
		Size:  size,
		Block: block.BlockSize{Min: 1, Preferred: 4096},
		Caps:  block.CapFlush | block.CapMultiConn,
	}}, nil
}

// goNBD adapts a go-nbd backend. The gate lets Close wait for the calls inside.
type goNBD struct {
	backend backend.Backend
	info    block.Info
	gate    gate.Gate
}

func (d *goNBD) Info() block.Info { return d.info }

func (d *goNBD) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.do(ctx, "read", off, int64(len(p)), func() error {
		n, err := d.backend.ReadAt(p, off)
		if n == len(p) && errors.Is(err, io.EOF) {
			return nil // io.ReaderAt may say so at the very end
		}
		return goNBDShort(n, len(p), err)
	})
}

func (d *goNBD) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	return d.do(ctx, "write", off, int64(len(p)), func() error {
		n, err := d.backend.WriteAt(p, off)
		return goNBDShort(n, len(p), err)
	}, flags)
}

func (d *goNBD) Flush(ctx context.Context) error {
	return d.do(ctx, "flush", 0, 0, d.backend.Sync)
}

func (d *goNBD) Close() error {
	return d.gate.Close(func() error {
		if c, ok := d.backend.(io.Closer); ok {
			return c.Close()
		}
		return nil
	})
}

// do runs a call between the checks that every Device makes and the naming of
// its error.
func (d *goNBD) do(ctx context.Context, op string, off, n int64, call func() error, flags ...block.Flags) error {
	const object = "go-nbd backend"
	if !d.gate.Enter() {
		return block.Errorf(block.Closed, op, object, off, "")
	}
	defer d.gate.Leave()
	err := block.CheckRange(d.info, op, off, n)
	if err == nil && len(flags) > 0 && flags[0] != 0 {
		err = block.Errorf(block.Invalid, op, object, off, "unknown flags %#x", uint8(flags[0]))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && (n > 0 || op == "flush") {
		err = call()
	}
	return block.Wrap(err, op, object, off)
}

// goNBDShort makes an incomplete transfer an error.
func goNBDShort(n, want int, err error) error {
	if err == nil && n != want {
		return io.ErrUnexpectedEOF
	}
	return err
}

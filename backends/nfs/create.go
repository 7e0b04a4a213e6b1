package nfs

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/backends/nfs/remote"
	"sluice/block"
)

// Create makes an image that reads as zeroes, with mode 0644 less the umask, or 0600
// where it is to be private. It has its name from the beginning, and loses it again
// where Create fails.
func (s *Store) Create(ctx context.Context, name string, opts block.CreateOptions) error {
	if err := s.check("create", name); err != nil {
		return err
	}
	if opts.Size < 0 {
		return block.Errorf(block.Invalid, "create", s.cfg.url(s.path(name)), -1, "negative size %d", opts.Size)
	}
	switch opts.Preallocate {
	case "", block.PreallocateOff, block.PreallocateMetadata, block.PreallocateFalloc, block.PreallocateFull:
	default:
		return block.Errorf(block.Invalid, "create", s.cfg.url(s.path(name)), -1,
			"unknown preallocation %q (off, metadata, falloc, full)", opts.Preallocate)
	}
	mode := 0o644 &^ umask()
	if opts.Private {
		mode = 0o600
	}
	if err := s.tree.Create(ctx, s.path(name), remote.SetAttr{Size: &opts.Size, Mode: &mode}); err != nil {
		return s.fail("create", name, err)
	}
	err := s.fill(ctx, name, opts)
	if err != nil {
		err = s.undo(ctx, name, err)
	}
	return s.fail("create", name, err)
}

// undoTime is how long the server has to take a half-made image away.
const undoTime = 10 * time.Second

func (s *Store) undo(ctx context.Context, name string, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if left := s.tree.Remove(ctx, s.path(name)); left != nil {
		return fmt.Errorf("%w; it could not be removed again: %w", err, left)
	}
	return err
}

// fill gives a new image its space.
func (s *Store) fill(ctx context.Context, name string, opts block.CreateOptions) error {
	full := opts.Preallocate == block.PreallocateFull
	if opts.Size == 0 || !full && opts.Preallocate != block.PreallocateFalloc {
		return nil
	}
	d, err := open(ctx, s.pool, s.cfg.at(s.path(name)), block.OpenOptions{})
	if err != nil {
		return err
	}
	if full {
		err = d.writeZeroes(ctx, "create", 0, opts.Size, false)
	} else {
		err = d.reserve(ctx, opts.Size)
	}
	if err == nil {
		err = d.sync(ctx, "create", -1)
	}
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// reserve claims space for the first n bytes.
func (d *Device) reserve(ctx context.Context, n int64) error {
	if d.allocator == nil {
		return block.Errorf(block.Unsupported, "create", d.url, -1,
			"the server cannot reserve space (NFS 4.2 can): create it without, or with zeroes written (full)")
	}
	_, err := d.untilDurable(ctx, func() (int64, error) { return n, d.allocator.Allocate(ctx, 0, n) })
	return err
}

// umask is the process's. Where it cannot be found out, nobody else may use a new
// image.
func umask() uint32 {
	const nobodyElse = 0o077
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return nobodyElse
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if mask, found := strings.CutPrefix(lines.Text(), "Umask:"); found {
			if n, err := strconv.ParseUint(strings.TrimSpace(mask), 8, 32); err == nil {
				return uint32(n)
			}
		}
	}
	return nobodyElse
}

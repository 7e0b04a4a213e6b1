package gateway

import (
	"context"
	"errors"

	"sluice/block"
)

// Image says where an image is and what it is, as in a Spec.
type Image struct {
	URL    string
	Format string // empty: by the name's extension, else raw
}

// Next gives the Device that comes in the place of old, in the way of
// swap.Device.Exchange: nothing is in flight, everything is durable, and old is its
// own if it succeeds.
//
// Where that is another image, Next calls keep when the new one has everything, and
// before it lets go of old. From then on the export is the new image, also for a
// process that comes after this one was killed. When keep fails, Next has to fail.
type Next func(ctx context.Context, old block.Device, keep func(Image) error) (block.Device, error)

// Exchange puts another image, or more layers, in the place of an export's image
// while clients use it. Calls wait meanwhile, and none fails. When next fails the
// export goes on with what it had. Exchange fails with Busy while the kernel moves a
// FUSE file's bytes by itself (passthrough). The attributes of an export's FUSE file
// tell of the image that it began with.
func (g *Gateway) Exchange(ctx context.Context, name string, next Next) error {
	e, err := g.find("exchange image of", name)
	if err != nil {
		return err
	}
	if err := e.control.lock(ctx); err != nil {
		return err
	}
	defer e.control.unlock()
	st, err := e.opened("exchange image of")
	if err != nil {
		return err
	}
	if e.passthrough() {
		return block.Errorf(block.Busy, "exchange image of", name, -1,
			"the kernel has the file of %s itself (passthrough); serve the export without", name)
	}
	size := e.size()
	e.mu.Lock()
	e.set(Swapping, nil)
	e.mu.Unlock()
	err = e.exchange(ctx, st, next)
	e.mu.Lock()
	e.set(Serving, nil)
	e.mu.Unlock()
	if err != nil {
		return block.Wrap(err, "exchange image of", name, -1)
	}
	e.resized(st)
	if e.size() != size {
		err = g.keep(e)
	}
	e.tell(ExportSwapped)
	return err
}

// exchange is Exchange with control held.
func (e *export) exchange(ctx context.Context, st *stack, next Next) error {
	s := e.described()
	before, now := Image{s.URL, s.Format}, Image{s.URL, s.Format}
	keep := func(to Image) error {
		err := e.become(to)
		if err == nil {
			now = to
		}
		return err
	}
	err := st.image.Exchange(ctx, func(ctx context.Context, old block.Device) (block.Device, error) {
		dev, err := next(ctx, old, keep)
		if err != nil && now != before { // before calls go on, on the old one
			err = errors.Join(err, e.become(before))
		}
		if err == nil {
			st.storage.set(dev)
		}
		return dev, err
	})
	return err
}

// become makes another image the export's, durably.
func (e *export) become(to Image) error {
	next := e.described()
	if (Image{next.URL, next.Format}) == to {
		return nil
	}
	if e.source == FromConfig { // the next start would take the old one again
		return block.Errorf(block.Permission, "exchange image of", e.name, -1, "the configuration says which image it is")
	}
	next.URL, next.Format = to.URL, to.Format
	if err := checkImage(next); err != nil {
		return err
	}
	e.mu.Lock()
	rules := e.rules
	e.mu.Unlock()
	return e.respecify(next, rules)
}

// passthrough reports whether the kernel moves the FUSE file's bytes by itself.
func (e *export) passthrough() bool {
	s := e.described()
	files := e.gw.files.Load()
	return s.Passthrough && files != nil && !s.NoFUSE && files.Passthrough(e.name)
}

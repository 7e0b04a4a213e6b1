package fault

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
)

// forwarded are the powers that pass through.
const forwarded = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard | block.CapExtents |
	block.CapDepth | block.CapPrefetch | block.CapResize | block.CapNowait | block.CapFileRange | block.CapBitmaps |
	block.CapMultiConn | block.CapSerialWrites

// Device is a Device around a Device.
type Device struct {
	dev    *block.Resolved
	rules  atomic.Pointer[ruleset] // nil: none
	once   sync.Once
	closed chan struct{}
}

// New puts a Device without rules around dev, which the result owns.
func New(dev block.Device) *Device {
	return &Device{dev: block.Resolve(dev), closed: make(chan struct{})}
}

// SetRules puts rules in place of those that were there; none makes the Device
// pass everything through. Counts, random choices and times begin anew. Calls
// that wait by an old rule begin anew, too.
func (d *Device) SetRules(rules []Rule) {
	var next *ruleset
	if len(rules) > 0 {
		next = newRuleset(rules)
	}
	if old := d.rules.Swap(next); old != nil {
		close(old.gone)
	}
}

// Rules gives the rules as they were set last.
func (d *Device) Rules() []Rule {
	var rules []Rule
	for _, c := range d.Counts() {
		rules = append(rules, c.Rule)
	}
	return rules
}

// Count is how often a rule has fired since it was set.
type Count struct {
	Rule  Rule
	Fired int64
}

// Counts gives the rules and how often each has fired. A call that waited and
// began anew with the same rule counts again.
func (d *Device) Counts() []Count {
	s := d.rules.Load()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make([]Count, len(s.rules))
	for i := range s.rules {
		counts[i] = Count{s.rules[i].Rule, s.rules[i].fired}
	}
	return counts
}

// Info tells what the Device below can do, as far as it is passed on.
func (d *Device) Info() block.Info {
	info := d.dev.Device.Info()
	info.Caps &= forwarded
	return info
}

// meet lets a call meet the rules. Where it does not fail and is not over, the
// caller carries out what the verdict leaves of it.
func (d *Device) meet(ctx context.Context, c call) (v verdict, over bool, err error) {
	info := d.dev.Device.Info()
	for {
		s := d.rules.Load()
		if s == nil || d.refused(info, c) {
			return verdict{}, false, nil
		}
		select {
		case <-d.closed:
			return verdict{}, false, block.Errorf(block.Closed, c.name, "", c.off, "")
		default:
		}
		v = s.judge(c, info.Block.Min)
		if v.rule == nil {
			return v, false, nil
		}
		again, err := d.wait(ctx, s, v, c)
		if err != nil {
			return v, false, err
		}
		if again {
			continue
		}
		if v.rule.Error != block.OK && !v.rule.Torn {
			return v, false, block.Errorf(v.rule.Error, c.name, "", c.off, "%w (fault rule %s)", v.rule.Error, v.text)
		}
		return v, v.rule.Drop, nil
	}
}

// refused reports whether a call is none for rules: the Device below refuses it,
// or it is empty.
func (d *Device) refused(info block.Info, c call) bool {
	if !c.ranged() {
		return false
	}
	var known block.Flags
	switch c.op {
	case Write, Discard:
	case Zero:
		known = block.MayUnmap | block.FastOnly
	default:
		return c.n == 0 || block.CheckRange(info, "", c.off, c.n) != nil
	}
	if info.Has(block.CapFUA) {
		known |= block.FUA
	}
	return c.n == 0 || info.ReadOnly || c.flags&^known != 0 || block.CheckRange(info, "", c.off, c.n) != nil
}

// wait makes a call wait as the rule says; again: the rules are others now.
func (d *Device) wait(ctx context.Context, s *ruleset, v verdict, c call) (again bool, err error) {
	long := v.rule.Delay
	if v.rule.Hang {
		long = v.until
	} else if long == 0 {
		return false, nil
	}
	var due <-chan time.Time // nil, where nothing but a change ends it
	if long > 0 {
		timer := time.NewTimer(long)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
		return v.rule.Hang, nil
	case <-s.gone:
		return true, nil
	case <-d.closed:
		return false, block.Errorf(block.Closed, c.name, "", c.off, "")
	case <-ctx.Done():
		return false, block.Wrap(ctx.Err(), c.name, "", c.off)
	}
}

// ReadAt reads, as far as the rules let it.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	if d.rules.Load() != nil {
		if _, _, err := d.meet(ctx, call{Read, "read", off, int64(len(p)), 0}); err != nil {
			return err
		}
	}
	return d.dev.ReadAt(ctx, p, off)
}

// WriteAt writes, as far as the rules let it: all, a part or nothing.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if d.rules.Load() != nil {
		v, over, err := d.meet(ctx, call{Write, "write", off, int64(len(p)), flags})
		if err != nil || over {
			return err
		}
		if v.rule != nil && v.rule.Torn {
			return d.tear(ctx, p, off, flags, v)
		}
	}
	return d.dev.WriteAt(ctx, p, off, flags)
}

// tear writes the prefix, with the flags of the whole, and fails.
func (d *Device) tear(ctx context.Context, p []byte, off int64, flags block.Flags, v verdict) error {
	if v.torn > 0 {
		if err := d.dev.WriteAt(ctx, p[:v.torn], off, flags); err != nil {
			return err
		}
	}
	kind := v.rule.Error
	if kind == block.OK {
		kind = block.IO
	}
	return block.Errorf(kind, "write", "", off, "torn after %d of %d bytes (fault rule %s)", v.torn, len(p), v.text)
}

// Flush flushes, as far as the rules let it.
func (d *Device) Flush(ctx context.Context) error {
	if d.rules.Load() != nil {
		if _, over, err := d.meet(ctx, call{Flush, "flush", -1, 0, 0}); err != nil || over {
			return err
		}
	}
	return d.dev.Flush(ctx)
}

// Close ends all waiting, with Closed, and closes the Device below. No rule is
// for it.
func (d *Device) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.dev.Close()
}

package hold

import (
	"fmt"
	"time"
)

// Status says whether requests go through.
type Status uint8

// What a Device can be doing.
const (
	// Serving: all is well, as far as is known.
	Serving Status = iota
	// Held: requests wait.
	Held
	// Frozen: changes are refused until Resume.
	Frozen
)

// String gives the status as one word.
func (s Status) String() string {
	names := [...]string{"serving", "held", "frozen"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// State is what a Device is doing.
type State struct {
	Status  Status
	Since   time.Time // when that began; zero where it has never been otherwise
	Err     error     // why; nil while serving
	Waiting int       // requests that are held
}

// counts are what metrics show.
type counts struct {
	times   uint64
	total   time.Duration // of the outages that have ended
	since   time.Time     // when the present one began; zero while there is none
	changed time.Time     // when all was well again
}

// Counts are figures for metrics.
type Counts struct {
	HeldNow int           // requests that wait
	Times   uint64        // outages so far, the present one included
	Total   time.Duration // how long they lasted
}

// State tells what the Device is doing. A Device that is held stays so until a
// request has worked, even when nobody waits.
func (d *Device) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now()
}

// now is State for who holds mu.
func (d *Device) now() State {
	s := State{Since: d.counts.changed, Waiting: len(d.away.queue) + len(d.full.queue)}
	for _, t := range [...]struct {
		trouble
		status Status
	}{{d.frozen, Frozen}, {d.away.trouble, Held}, {d.full.trouble, Held}} {
		if !t.since.IsZero() {
			s.Status, s.Since, s.Err = t.status, t.since, t.err
			break
		}
	}
	return s
}

// Counts gives the figures for metrics.
func (d *Device) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := Counts{HeldNow: len(d.away.queue) + len(d.full.queue), Times: d.counts.times, Total: d.counts.total}
	if !d.counts.since.IsZero() {
		c.Total += time.Since(d.counts.since)
	}
	return c
}

// Policy gives the policy that holds.
func (d *Device) Policy() Policy {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.policy
}

// SetPolicy changes the policy. Requests that wait go by the new one at once: they
// get their error where it does not hold them, or where they have waited longer
// than its limit. Freeze freezes the Device where requests were held. A Device
// that is frozen stays so, whatever the policy, until Resume.
func (d *Device) SetPolicy(p Policy) {
	defer d.tell()
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy = p
	for _, o := range [...]*outage{&d.away, &d.full} {
		switch {
		case !o.lasts():
		case p.Mode == Wait && p.covers(o.kind):
			for _, w := range o.queue {
				w.interrupt()
			}
		default:
			if p.Mode == Freeze && p.covers(o.kind) {
				d.freeze(o.err, now)
			}
			d.over(o, now, true)
		}
	}
}

// Resume lets a held Device try again now, and a frozen one take changes again. That
// it was frozen is told before, if nobody has: the request whose failure froze it has
// not returned yet, and does not until this is told.
func (d *Device) Resume() {
	d.telling.Lock()
	defer d.telling.Unlock()
	now := time.Now()
	d.mu.Lock()
	was := d.now()
	for _, o := range [...]*outage{&d.away, &d.full} {
		o.delay, o.next = 0, now
		o.rouseFirst()
	}
	if d.state.Load()&isFrozen != 0 {
		d.frozen = trouble{}
		d.unmark(isFrozen, now)
	}
	d.mu.Unlock()
	if was.Status == Frozen {
		d.report(was)
	}
	d.tellOrdered()
}

// GiveUp has no request wait from now on, as the policy Fail, which it sets. Other
// than with SetPolicy, the attempt that a request is making goes on, and is the
// request's last: the storage may have just come back.
func (d *Device) GiveUp() {
	defer d.tell()
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy = Policy{Mode: Fail}
	for _, o := range [...]*outage{&d.away, &d.full} {
		if !o.lasts() {
			continue
		}
		if len(o.queue) > 0 && o.queue[0].cancel != nil {
			trying := o.queue[0]
			trying.remove()
			trying.refused = true
		}
		d.over(o, now, true)
	}
}

// Freeze refuses changes until Resume, whatever the policy: what failed before this
// Device came into play, with err, is not followed by writes that succeed.
func (d *Device) Freeze(err error) {
	defer d.tell()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.freeze(err, time.Now())
}

// freeze refuses changes from now on. The caller holds mu.
func (d *Device) freeze(err error, now time.Time) {
	if d.state.Load()&isFrozen == 0 {
		d.frozen = trouble{since: now, err: err}
		d.mark(isFrozen)
	}
}

// began notes that an outage has begun. The caller holds mu.
func (d *Device) began(o *outage) {
	if d.counts.since.IsZero() {
		d.counts.since = o.since
		d.counts.times++
	}
	d.mark(o.bit)
}

// over ends an outage. The caller holds mu.
func (d *Device) over(o *outage, now time.Time, refused bool) {
	o.end(now, refused)
	d.unmark(o.bit, now)
	if !d.away.lasts() && !d.full.lasts() {
		d.counts.total += now.Sub(d.counts.since)
		d.counts.since = time.Time{}
	}
}

// shut begins to close: who waits goes home.
func (d *Device) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mark(isClosed)
	for _, o := range [...]*outage{&d.away, &d.full} {
		for _, w := range o.queue {
			w.interrupt()
		}
	}
}

// mark sets a bit of the state. The caller holds mu.
func (d *Device) mark(bit uint32) {
	d.state.Or(bit)
	d.version.Add(1)
}

// unmark takes a bit away. The caller holds mu.
func (d *Device) unmark(bit uint32, now time.Time) {
	d.state.And(^bit)
	d.version.Add(1)
	if d.state.Load() == 0 {
		d.counts.changed = now
	}
}

// tell makes a change of state known, if nobody has yet. Of several changes in
// quick succession the last is told for sure. The caller holds no lock.
func (d *Device) tell() {
	if d.version.Load() == d.toldVersion.Load() {
		return
	}
	d.telling.Lock()
	defer d.telling.Unlock()
	d.tellOrdered()
}

// tellOrdered is tell for who holds telling.
func (d *Device) tellOrdered() {
	d.mu.Lock()
	s, version := d.now(), d.version.Load()
	d.mu.Unlock()
	d.report(s)
	d.toldVersion.Store(version) // after: who finds it told returns
}

// report tells of a state, unless it was told last. The caller holds telling.
func (d *Device) report(s State) {
	was := d.told
	if s.Status == was.Status && s.Since.Equal(was.Since) {
		return
	}
	d.told = s
	d.log(was, s)
	if d.cfg.Changed != nil {
		d.cfg.Changed(s)
	}
}

func (d *Device) log(was, s State) {
	switch s.Status {
	case Held:
		d.cfg.Log.Warn("requests wait for the storage", "object", d.cfg.Object, "err", s.Err)
	case Frozen:
		d.cfg.Log.Warn("changes are refused until resume", "object", d.cfg.Object, "err", s.Err)
	default:
		d.cfg.Log.Info("serving again", "object", d.cfg.Object, "was", was.Status.String(), "after", s.Since.Sub(was.Since).Round(time.Millisecond))
	}
}

package swap

import (
	"sync"

	"sluice/block"
)

// pins remembers from which Device each pinned range comes. A slot's number is
// the range's token for those above.
type pins struct {
	mu    sync.Mutex
	slots []pin
	free  []int
}

// pin is a pinned range.
type pin struct {
	dev   block.Ranger
	token uint64 // the Device's own
}

// PinRange implements block.Ranger; see the package comment on exchanges.
func (d *Device) PinRange(off, n int64) (block.FileRange, bool) {
	g := d.current.Load()
	if !g.gate.Enter() {
		return block.FileRange{}, false
	}
	defer g.leave()
	if g.dev.Ranger == nil {
		return block.FileRange{}, false
	}
	r, ok := g.dev.Ranger.PinRange(off, n)
	if !ok {
		return r, false
	}
	r.Token = d.pins.put(pin{g.dev.Ranger, r.Token})
	return r, true
}

// UnpinRange implements block.Ranger.
func (d *Device) UnpinRange(r block.FileRange) {
	p := d.pins.take(r.Token)
	r.Token = p.token
	p.dev.UnpinRange(r)
}

func (s *pins) put(p pin) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		s.slots[i] = p
		return uint64(i)
	}
	s.slots = append(s.slots, p)
	return uint64(len(s.slots) - 1)
}

func (s *pins) take(token uint64) pin {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.slots[token]
	s.slots[token] = pin{}
	s.free = append(s.free, int(token))
	return p
}

package state

import (
	"errors"
	"os"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"sluice/block"
)

// change is one caller's part of a transaction. err and done are the writer's
// until the caller gets its turn.
type change struct {
	size  int // bytes that it adds
	apply func(*bbolt.Tx) error
	err   error
	done  bool
}

// commit makes a change durable:
//
//  1. it joins those that wait;
//  2. the caller waits for its turn; meanwhile another one may have written its
//     change with its own;
//  3. otherwise it writes all that wait in one transaction, or, when that cannot
//     be done, each in its own: one that is too large must not fail the others.
//
// apply may be called more than once. After an error that came from the disk, the
// change is or is not there after the next Open.
func (s *State) commit(size int, apply func(*bbolt.Tx) error) error {
	c := &change{size: size, apply: apply}
	s.mu.Lock()
	s.waiting = append(s.waiting, c)
	s.mu.Unlock()

	s.turn.Lock()
	defer s.turn.Unlock()
	if c.done {
		return c.err
	}
	s.mu.Lock()
	together := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	err := s.write(together)
	for _, one := range together {
		one.err, one.done = err, true
		if err != nil && len(together) > 1 {
			one.err = s.write([]*change{one})
		}
	}
	return c.err
}

// headroom is what the file has to spare at all times. A change writes new pages
// before the old ones are free, also one that removes: it has to be possible on
// a full disk.
const headroom = 256 << 10

// makeRoom has the disk promise room for what is added, and headroom beyond it;
// turn is held.
func (s *State) makeRoom(size int) error {
	var end int64 // of the pages that are or were used
	err := s.db.View(func(tx *bbolt.Tx) error {
		end = tx.Size()
		return nil
	})
	if err != nil {
		return err
	}
	stats := s.db.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize)
	if end-free+int64(size)+headroom <= s.room {
		return nil
	}
	return s.allocate(end + int64(size) + 2*headroom) // not a little for each change
}

// allocate has the disk promise the file so many bytes.
func (s *State) allocate(n int64) error {
	if err := unix.Fallocate(int(s.file.Fd()), 0, 0, n); err != nil {
		if err == unix.EOPNOTSUPP {
			return nil // a change may fail then, and the file is whole all the same
		}
		return os.NewSyscallError("allocate", err)
	}
	s.room = n
	return s.file.Sync()
}

// write writes changes in one transaction; turn is held.
func (s *State) write(changes []*change) error {
	size := 0
	for _, c := range changes {
		size += c.size
	}
	if size > 0 {
		if err := s.makeRoom(size); err != nil {
			return closedOr(err)
		}
	}
	return closedOr(s.db.Update(func(tx *bbolt.Tx) error {
		for _, c := range changes {
			if err := c.apply(tx); err != nil {
				return err
			}
		}
		return nil
	}))
}

func closedOr(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return block.Closed
	}
	return causeOf(err)
}

// Numbers.
const (
	firstID = 2   // 0 is none, 1 the root of a FUSE tree
	reserve = 256 // numbers taken from the file at once; those not given out are lost in a crash
)

// NextID gives out a number that nobody had before, also not before a crash. Two
// daemons with different folders may give out the same.
func (s *State) NextID() (uint64, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return 0, block.Errorf(block.Closed, "take a number", s.path, -1, "")
		}
		if s.next < s.end {
			s.next++
			id := s.next - 1
			s.mu.Unlock()
			return id, nil
		}
		from := s.end
		s.mu.Unlock()
		if err := s.extend(from); err != nil {
			return 0, block.Wrap(err, "take a number", s.path, -1)
		}
	}
}

// extend takes numbers from the file, unless somebody else just did.
func (s *State) extend(from uint64) error {
	to := from + reserve
	err := s.commit(0, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if n, _ := numberOf(meta.Get(nextKey)); n >= to {
			return nil
		}
		return meta.Put(nextKey, number(to))
	})
	if err == nil {
		s.mu.Lock()
		s.end = max(s.end, to)
		s.mu.Unlock()
	}
	return err
}

// given reports whether NextID gave out the number.
func (s *State) given(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return id >= firstID && id < s.next
}

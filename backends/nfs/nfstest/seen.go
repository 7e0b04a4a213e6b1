package nfstest

import "maps"

// Write is a WRITE as it arrived (and was executed).
type Write struct {
	File   uint64 // fileid
	Offset uint64
	Length int
	Stable uint32 // asked for: 0 UNSTABLE, 1 DATA_SYNC, 2 FILE_SYNC
}

// seen counts what came.
type seen struct {
	counts  map[string]int
	waiting []arrival
	maxSlot uint32
}

type arrival struct {
	op   string
	n    int
	done chan struct{}
}

// note counts an operation. Server.mu is held.
func (s *seen) note(op string) {
	if s.counts == nil {
		s.counts = map[string]int{}
	}
	s.counts[op]++
	rest := s.waiting[:0]
	for _, a := range s.waiting {
		if s.counts[a.op] >= a.n {
			close(a.done)
		} else {
			rest = append(rest, a)
		}
	}
	s.waiting = rest
}

// Count is how often an operation came, executed or not.
func (s *Server) Count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.counts[op]
}

// Counts is Count of all operations that came.
func (s *Server) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.seen.counts)
}

// Arrived is closed when an operation has come n times since the start.
func (s *Server) Arrived(op string, n int) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := make(chan struct{})
	if s.seen.counts[op] >= n {
		close(done)
	} else {
		s.seen.waiting = append(s.seen.waiting, arrival{op, n, done})
	}
	return done
}

// Writes are the writes since the start or since ForgetWrites, in the order in which
// they were executed.
func (s *Server) Writes() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Write(nil), s.writes...)
}

// ForgetWrites begins the list of writes anew.
func (s *Server) ForgetWrites() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = nil
}

// HighestSlot is the highest slot that a SEQUENCE used since it was asked for last.
func (s *Server) HighestSlot() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	highest := s.seen.maxSlot
	s.seen.maxSlot = 0
	return highest
}

// Connections is how many connections there are now, and were ever.
func (s *Server) Connections() (now, ever int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.conned
}

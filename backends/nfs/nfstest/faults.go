package nfstest

// Frame is a way to send a reply.
type Frame int

// The ways. All but the first two end the connection.
const (
	FrameWhole     Frame = iota // one record of one fragment
	FrameBytes                  // fragments of one byte each
	FrameHuge                   // a record mark of 2 GiB before the reply
	FrameTruncated              // half the record
	FrameEmpty                  // empty fragments without end, until the client closes
)

// Action is what becomes of an operation and of the reply that it is part of. The zero
// value is honest. The fields may be combined; what several operations of a compound
// ask for is combined too, the last one counting.
type Action struct {
	// Status answers the operation (or procedure) without executing it, unless 0.
	Status uint32
	// Accept is an accept_stat of RFC 5531, sent instead of results unless 0: 1
	// PROG_UNAVAIL to 5 SYSTEM_ERR. The operation is not executed.
	Accept uint32
	// CutBefore closes the connection. Neither the operation is executed nor those
	// behind it, and the slot is as if the call had never come.
	CutBefore bool
	// CutAfter closes the connection when all operations were executed; no reply.
	CutAfter bool
	// CutAt sends that many bytes of the record, then closes the connection, unless 0.
	CutAt int
	// Drop executes and never answers.
	Drop bool
	// Twice answers twice.
	Twice bool
	// WrongXID answers with an xid that nobody asked with.
	WrongXID bool
	// Behind sends the reply after that many later ones of the connection.
	Behind int
	// After sends the reply when it is closed.
	After <-chan struct{}
	// Wait executes the operation when it is closed.
	Wait <-chan struct{}
	// Result changes the result of the operation: number, status and body (for a
	// procedure of NFSv3: status and body). A replay of the reply is honest.
	Result func(result []byte) []byte
	// Edit changes the RPC message of the reply.
	Edit func(message []byte) []byte
	// Raw is sent as the record, instead of the reply.
	Raw []byte
	// Wire is sent without a record mark, instead of the reply.
	Wire []byte
	// Frame is how the reply is sent.
	Frame Frame
}

// merge adds what b asks for about the reply.
func (a *Action) merge(b *Action) {
	a.CutBefore = a.CutBefore || b.CutBefore
	a.CutAfter = a.CutAfter || b.CutAfter
	a.Drop = a.Drop || b.Drop
	a.Twice = a.Twice || b.Twice
	a.WrongXID = a.WrongXID || b.WrongXID
	if b.Accept != 0 {
		a.Accept = b.Accept
	}
	if b.CutAt != 0 {
		a.CutAt = b.CutAt
	}
	if b.Behind != 0 {
		a.Behind = b.Behind
	}
	if b.After != nil {
		a.After = b.After
	}
	if b.Edit != nil {
		a.Edit = b.Edit
	}
	if b.Raw != nil {
		a.Raw = b.Raw
	}
	if b.Wire != nil {
		a.Wire = b.Wire
	}
	if b.Frame != FrameWhole {
		a.Frame = b.Frame
	}
}

type failure struct {
	status uint32
	left   int // forever when negative
}

type faults struct {
	hook  func(op string, args []byte) Action
	fails map[string][]failure
	each  []uint32       // statuses that every operation fails with in turn
	turns map[string]int // how far each operation is in each
	waits map[string][]<-chan struct{}
}

// Hook asks hook for each operation (of a compound: in turn, as they are executed)
// what becomes of it; nil ends that. args are those of the operation and whatever
// follows in the record; they must not be kept. COMPOUND is asked for as well, before
// its operations.
func (s *Server) Hook(hook func(op string, args []byte) Action) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.hook = hook
}

// Fail answers the next count calls of an operation with a status, all of them when
// count is negative. Several of these follow each other.
func (s *Server) Fail(op string, status uint32, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.fails == nil {
		s.faults.fails = map[string][]failure{}
	}
	s.faults.fails[op] = append(s.faults.fails[op], failure{status, count})
}

// FailEach makes every operation fail with each of these in turn, and then not any more.
func (s *Server) FailEach(statuses ...uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.each, s.faults.turns = statuses, map[string]int{}
}

// Delay lets operations wait before they are executed, until a channel is closed. Those
// that come later on the same connection go ahead of them.
func (s *Server) Delay(op string, until <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.waits == nil {
		s.faults.waits = map[string][]<-chan struct{}{}
	}
	s.faults.waits[op] = append(s.faults.waits[op], until)
}

// Honest ends Hook, Fail, FailEach and Delay. What is delayed already stays so.
func (s *Server) Honest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults{}
}

// failing is the status that an operation is to fail with now, or ok.
func (f *faults) failing(op string) uint32 {
	for _, key := range []string{op, "*"} {
		list := f.fails[key]
		for len(list) > 0 && list[0].left == 0 {
			list = list[1:]
		}
		if f.fails != nil {
			f.fails[key] = list
		}
		if len(list) > 0 {
			list[0].left--
			return list[0].status
		}
	}
	if i := f.turns[op]; i < len(f.each) {
		f.turns[op]++
		return f.each[i]
	}
	return ok
}

// waiting are the channels an operation has to wait for.
func (f *faults) waiting(op string) []<-chan struct{} {
	all := f.waits[op]
	if star := f.waits["*"]; len(star) > 0 {
		all = append(all[:len(all):len(all)], star...)
	}
	return all
}

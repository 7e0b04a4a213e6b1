package nfstest

import (
	"encoding/binary"
	"time"

	"sluice/backends/nfs/xdr"
)

// instance is what a restart forgets: clients, sessions, opens. Server.mu guards it.
type instance struct {
	boot       uint32
	gone       chan struct{} // closed by Restart
	grace      bool
	reclaimers map[string]bool // owners of clients that may reclaim; true when they are done
	clients    map[uint64]*client
	sessions   map[[16]byte]*session
	newest     []*session // in the order of creation
	states     map[uint64]*state
	last       uint64 // id of a client, session or state that was given last
}

// client is a client ID (RFC 8881 section 2.4).
type client struct {
	id        uint64
	owner     string
	verifier  [8]byte
	confirmed bool
	reclaimed bool // RECLAIM_COMPLETE came
	renewed   time.Duration
	states    int
	sequence  uint32 // that the next CREATE_SESSION has to have
	created   []byte // result of the last CREATE_SESSION
}

// holds reports whether the client has state that it could reclaim.
func (c *client) holds() bool { return c.states > 0 }

type session struct {
	id      [16]byte
	client  *client
	minor   uint32
	limits  Limits // those that were granted; Slots is len(slots)
	slots   []slot
	conns   map[*conn]bool // true if the back channel may use it
	wants   bool           // asked for a back channel
	program uint32         // of callbacks
	cred    []byte         // of callbacks, flavor and body
	backSeq uint32
	backXID uint32
}

// slot is an entry of the reply cache.
type slot struct {
	sequence uint32
	sum      uint64 // of the operations after SEQUENCE
	busy     bool
	reply    []byte // results of the whole compound, nil if not kept
	first    []byte // the result of SEQUENCE
}

func newInstance(boot uint32) *instance {
	return &instance{
		boot: boot, gone: make(chan struct{}), reclaimers: map[string]bool{}, clients: map[uint64]*client{},
		sessions: map[[16]byte]*session{}, states: map[uint64]*state{},
	}
}

func (i *instance) next() uint64 {
	i.last++
	return uint64(i.boot)<<32 | i.last
}

// forget unbinds a connection that is gone.
func (i *instance) forget(c *conn) {
	for _, ses := range i.sessions {
		delete(ses.conns, c)
	}
}

// backChannel is the newest session that has a back channel, and its connection.
func (i *instance) backChannel() (*session, *conn) {
	for n := len(i.newest) - 1; n >= 0; n-- {
		var newest *conn
		for c, back := range i.newest[n].conns {
			if back && (newest == nil || c.number > newest.number) {
				newest = c
			}
		}
		if newest != nil {
			return i.newest[n], newest
		}
	}
	return nil, nil
}

func (i *instance) endSession(ses *session) {
	delete(i.sessions, ses.id)
	for n, other := range i.newest {
		if other == ses {
			i.newest = append(i.newest[:n:n], i.newest[n+1:]...)
			return
		}
	}
}

// endClient forgets a client with all that it has.
func (s *Server) endClient(c *client) {
	for _, ses := range s.inst.sessions {
		if ses.client == c {
			s.inst.endSession(ses)
		}
	}
	for _, st := range s.inst.states {
		if st.client == c {
			s.endState(st)
		}
	}
	delete(s.inst.clients, c.id)
}

// Advance lets time pass: the leases of clients that sent no SEQUENCE for longer than
// a lease run out, and the server forgets these clients.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock += d
	for _, c := range s.inst.clients {
		if s.clock-c.renewed > s.options.Lease {
			s.endClient(c)
		}
	}
}

// ExpireLeases lets the leases of all clients run out.
func (s *Server) ExpireLeases() { s.Advance(s.options.Lease + 1) }

// DropSessions forgets all sessions; clients and their opens stay.
func (s *Server) DropSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.inst.sessions {
		s.inst.endSession(ses)
	}
}

// StartGrace begins a grace period in which everybody may reclaim who had an open at
// the last Restart.
func (s *Server) StartGrace() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inst.grace = true
}

// EndGrace ends the grace period, which else ends when all clients that had opens at
// the Restart have sent RECLAIM_COMPLETE.
func (s *Server) EndGrace() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inst.grace = false
}

// settleGrace ends the grace period when nobody is left to reclaim.
func (i *instance) settleGrace() {
	for _, done := range i.reclaimers {
		if !done {
			return
		}
	}
	i.grace = false
}

// SetStatusFlags adds flags to the sr_status_flags of every SEQUENCE.
func (s *Server) SetStatusFlags(flags uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flags = flags
}

// Delegate makes OPEN give delegations: for writing to who opens for writing.
func (s *Server) Delegate(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delegate = on
}

// Clients is how many confirmed clients there are, Sessions how many sessions, Opens
// how many opens, locks and delegations.
func (s *Server) Clients() (clients, sessions, states int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.inst.clients {
		if c.confirmed {
			clients++
		}
	}
	return clients, len(s.inst.sessions), len(s.inst.states)
}

// Revoke takes all opens, locks and delegations of a file away, as an administrator may.
func (s *Server) Revoke(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.tree.walk(path); n != nil {
		for _, st := range n.states {
			st.revoked = true
		}
	}
}

// The kinds of state.
const (
	stateOpen = iota
	stateLock
	stateDelegation
)

// state is what a stateid stands for.
type state struct {
	id           uint64
	seq          uint32
	kind         int
	client       *client
	owner        string
	file         *inode
	access, deny uint32
	open         *state // of a lock: the open that it came from
	ranges       []byteRange
	revoked      bool
}

// byteRange is a lock on [from, to), to being 1<<64-1 for "to the end".
type byteRange struct {
	from, to uint64
	write    bool
}

func (s *Server) newState(kind int, c *client, owner string, file *inode) *state {
	st := &state{id: s.inst.next(), seq: 1, kind: kind, client: c, owner: owner, file: file}
	s.inst.states[st.id] = st
	file.states = append(file.states, st)
	c.states++
	return st
}

func (s *Server) endState(st *state) {
	delete(s.inst.states, st.id)
	st.client.states--
	for i, other := range st.file.states {
		if other == st {
			st.file.states = append(st.file.states[:i:i], st.file.states[i+1:]...)
			break
		}
	}
	s.tree.settle(st.file)
}

// stateid is seqid and other of RFC 8881 section 3.3.12.
type stateid struct {
	seq   uint32
	other [12]byte
}

var (
	allOnes = [12]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}
	// currentStateid stands for the one that the compound got last (section 16.2.3.1.2).
	currentStateid = stateid{seq: 1}
)

// special reports whether it is the anonymous one or the one that bypasses reads.
func (id stateid) special() bool {
	return id == stateid{} || id.seq == 1<<32-1 && id.other == allOnes
}

func readStateid(r *xdr.Reader) (id stateid) {
	id.seq = r.Uint32()
	copy(id.other[:], r.Fixed(12))
	return id
}

const stateMagic = 0x53746964

func (i *instance) appendStateid(b []byte, st *state, seq uint32) []byte {
	return xdr.AppendUint64(xdr.AppendUint32(xdr.AppendUint32(b, seq), stateMagic), st.id)
}

// find is the state of a stateid that is not special, or says why there is none.
func (i *instance) find(id stateid) (*state, uint32) {
	if binary.BigEndian.Uint32(id.other[:]) != stateMagic {
		return nil, errBadStateID
	}
	number := binary.BigEndian.Uint64(id.other[4:])
	if uint32(number>>32) != i.boot {
		return nil, errStaleStateID
	}
	st := i.states[number]
	switch {
	case st == nil:
		return nil, errBadStateID
	case st.revoked:
		return st, errAdminRevoked
	case id.seq != 0 && id.seq < st.seq:
		return nil, errOldStateID
	case id.seq > st.seq:
		return nil, errBadStateID
	}
	return st, ok
}

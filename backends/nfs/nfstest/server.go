package nfstest

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Options say what a Server offers. The zero value is NFSv4.1, 4.2 and v3 on one port.
type Options struct {
	// Ports is how many loopback TCP ports serve the same server, 1 when 0.
	Ports int
	// Listen are the addresses to listen on, instead of Ports. Programs that ask a port
	// mapper need one with port 111.
	Listen []string
	// Minor are the minor versions of NFSv4 that are served, 1 and 2 when nil; none
	// when empty.
	Minor []uint32
	// NoV3 leaves out NFSv3, MOUNT and the port mapper.
	NoV3 bool
	// Export is the directory that MOUNT lists, "/export" when empty.
	Export string
	// Grace begins a grace period at each Restart.
	Grace bool
	// Lease is lease_time, 90 s when 0, in the time of Server.Advance.
	Lease time.Duration
	// Limits are the limits at the start; a field that is 0 has its default.
	Limits Limits
}

// Limits are what the server grants.
type Limits struct {
	Slots       uint32 // of a session, 64
	MaxRequest  uint32 // ca_maxrequestsize, 1 MiB and 64 KiB
	MaxResponse uint32 // ca_maxresponsesize, the same
	MaxCached   uint32 // ca_maxresponsesize_cached, 8 KiB
	MaxOps      uint32 // ca_maxoperations, 64
	ReadSize    uint32 // maxread and rtmax, 1 MiB; a READ of more is cut short
	WriteSize   uint32 // maxwrite and wtmax, 1 MiB; a WRITE of more is cut short
}

func (l *Limits) defaults() {
	for _, f := range []struct {
		field *uint32
		value uint32
	}{
		{&l.Slots, 64}, {&l.MaxRequest, 1<<20 + 1<<16}, {&l.MaxResponse, 1<<20 + 1<<16}, {&l.MaxCached, 8 << 10},
		{&l.MaxOps, 64}, {&l.ReadSize, 1 << 20}, {&l.WriteSize, 1 << 20},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
}

// Server is the server. Its methods may be called from any goroutine, also from hooks.
type Server struct {
	options Options
	addrs   []string
	stop    chan struct{} // closed by Close
	closing sync.Once
	serving sync.WaitGroup

	mu        sync.Mutex
	listeners []net.Listener // nil while down
	conns     map[*conn]struct{}
	conned    int // connections so far
	limits    Limits
	minor     []uint32
	tree      *tree
	inst      *instance
	boots     uint32
	verifier  [8]byte
	clock     time.Duration
	delegate  bool
	flags     uint32 // of SEQUENCE
	writes    []Write
	faults    faults
	seen      seen
}

// Start starts a server, which ends with the test.
func Start(tb testing.TB, options Options) *Server {
	tb.Helper()
	s, err := New(options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// New starts a server that the caller closes. The export is an empty directory.
func New(options Options) (*Server, error) {
	if options.Export == "" {
		options.Export = "/export"
	}
	if options.Minor == nil {
		options.Minor = []uint32{1, 2}
	}
	if options.Lease == 0 {
		options.Lease = 90 * time.Second
	}
	options.Limits.defaults()
	s := &Server{options: options, limits: options.Limits, minor: options.Minor, stop: make(chan struct{}), tree: newTree(), conns: map[*conn]struct{}{}}
	s.addrs = append(s.addrs, options.Listen...)
	for len(s.addrs) == 0 || options.Listen == nil && len(s.addrs) < options.Ports {
		s.addrs = append(s.addrs, "127.0.0.1:0")
	}
	s.Mkdir(options.Export)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boot(nil)
	if err := s.listen(); err != nil {
		return nil, err
	}
	return s, nil
}

// listen opens the ports, the same as before if it did already. s.mu is held.
func (s *Server) listen() error {
	for i, addr := range s.addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			s.deafen()
			return fmt.Errorf("NFS server for tests: %w", err)
		}
		s.addrs[i] = l.Addr().String()
		s.listeners = append(s.listeners, l)
		s.serving.Go(func() { s.accept(l) })
	}
	return nil
}

// deafen closes the ports. s.mu is held.
func (s *Server) deafen() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.listeners = nil
}

func (s *Server) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.listeners == nil {
			s.mu.Unlock()
			_ = nc.Close()
			return
		}
		s.conned++
		c := newConn(s, nc, s.conned)
		s.conns[c] = struct{}{}
		s.serving.Go(c.serve)
		s.mu.Unlock()
	}
}

// Close ends the server and waits for all of its goroutines.
func (s *Server) Close() {
	s.closing.Do(func() { close(s.stop) })
	s.Stop()
	s.serving.Wait()
}

// Addr is the first address, "127.0.0.1:port".
func (s *Server) Addr() string { return s.Addrs()[0] }

// Addrs are all addresses. They stay the same for the life of the server.
func (s *Server) Addrs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.addrs...)
}

// Port is the port of Addr.
func (s *Server) Port() int { return portOf(s.Addr()) }

func portOf(addr string) int {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return 0
	}
	return tcp.Port
}

// Export is the directory that MOUNT lists.
func (s *Server) Export() string { return s.options.Export }

// URL is an nfs:// URL of a path in the tree, with the port in the authority.
func (s *Server) URL(path string) string { return "nfs://" + s.Addr() + path }

// LibnfsURL is the URL of a path as libnfs wants it, for NFSv3 without a port mapper.
func (s *Server) LibnfsURL(path string) string {
	return fmt.Sprintf("nfs://127.0.0.1%s?nfsport=%d&mountport=%d&version=3", path, s.Port(), s.Port())
}

// Kill closes all connections; everything else stays.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Server) kill() {
	for c := range s.conns {
		c.cut()
	}
}

// Stop closes the ports and all connections, until Resume. State and data stay.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deafen()
	s.kill()
}

// Resume opens the ports again after Stop.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listeners != nil {
		return nil
	}
	return s.listen()
}

// Restart is a crash and a new start on the same ports: what is not durable is lost,
// and so are clients, sessions, opens and locks; the verifier is another one.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
	s.lose()
	s.boot(s.inst)
}

// boot makes a new instance. s.mu is held.
func (s *Server) boot(old *instance) {
	s.boots++
	s.newVerifier()
	s.inst = newInstance(s.boots)
	if old == nil {
		return
	}
	close(old.gone)
	for _, c := range old.clients {
		if c.confirmed && c.holds() {
			s.inst.reclaimers[c.owner] = false
		}
	}
	for owner, done := range old.reclaimers {
		if !done {
			s.inst.reclaimers[owner] = false
		}
	}
	s.inst.grace = s.options.Grace
	for _, n := range s.tree.nodes {
		n.states = nil
	}
	for _, n := range s.tree.nodes {
		s.tree.settle(n)
	}
}

func (s *Server) newVerifier() {
	binary.BigEndian.PutUint64(s.verifier[:], uint64(time.Now().UnixNano()))
	s.verifier[0], s.verifier[1] = byte(s.boots>>8), byte(s.boots)
}

// Lose forgets what is not durable and takes another verifier, but keeps connections,
// sessions and opens: the crash of a storage node behind the server.
func (s *Server) Lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose()
	s.newVerifier()
}

func (s *Server) lose() {
	for _, n := range s.tree.nodes {
		if n.kind == kindFile {
			n.data.lose()
			n.touch(true)
		}
	}
}

// Sync makes everything durable, as a server may at any time.
func (s *Server) Sync() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.tree.nodes {
		if n.kind == kindFile {
			n.data.commit(0, 0)
		}
	}
}

// SetVerifier changes the verifier of WRITE and COMMIT; nothing is lost.
func (s *Server) SetVerifier(v [8]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verifier = v
}

// Verifier is the verifier of WRITE and COMMIT.
func (s *Server) Verifier() [8]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verifier
}

// SetLimits changes the limits. Sessions keep those that they were created with,
// except that fewer slots become the target of SEQUENCE.
func (s *Server) SetLimits(change func(*Limits)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.limits)
}

// SetMinor changes which minor versions of NFSv4 are served, from the next COMPOUND on.
func (s *Server) SetMinor(minor ...uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.minor = minor
}

// serves reports whether a minor version is served, and with any whether one is.
func (s *Server) serves(minor uint32, any bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return any && len(s.minor) > 0 || slices.Contains(s.minor, minor)
}

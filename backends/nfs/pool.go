package nfs

import (
	"context"
	"fmt"
	"sync"

	"sluice/backends/nfs/remote"
)

// pool keeps the clients of this process. Whoever has the same configuration, but
// for what concerns one image, shares one: connections, session and recovery are of
// a server, not of a disk.
type pool struct {
	dial func(ctx context.Context, cfg *Config) (remote.Client, error)

	mu   sync.Mutex
	open map[string]*shared
}

// clients is the pool of the process.
var clients = pool{dial: func(ctx context.Context, cfg *Config) (remote.Client, error) { return dial(ctx, cfg, versions) }}

// shared is a client in a pool. client and err are set when ready is closed.
type shared struct {
	pool *pool
	key  string

	users  int // under pool.mu
	cancel context.CancelFunc
	ready  chan struct{}
	client remote.Client
	err    error
}

// key tells configurations of clients apart.
func (cfg *Config) key() string {
	return fmt.Sprintf("%s %q %v %d %v %v %v %d %d", cfg.address(), cfg.Version, cfg.Cred, cfg.Connections, cfg.Reconnect,
		cfg.Timeout, cfg.Silence, cfg.MountPort, cfg.PortmapPort)
}

// get gives a client, which release gives back. Those who come while it is dialled
// wait for the same attempt, and have its error; the next one tries anew.
func (p *pool) get(ctx context.Context, cfg *Config) (*shared, error) {
	s := p.join(ctx, cfg)
	select {
	case <-s.ready:
		if s.err != nil {
			_ = s.release()
			return nil, s.err
		}
		return s, nil
	case <-ctx.Done():
		_ = s.release()
		return nil, ctx.Err()
	}
}

// join counts the caller as a user, and begins to dial where nobody has. The attempt
// goes on while one user waits, whoever began it.
func (p *pool) join(ctx context.Context, cfg *Config) *shared {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.open[cfg.key()]
	if s != nil {
		s.users++
		return s
	}
	dialing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s = &shared{pool: p, key: cfg.key(), users: 1, cancel: cancel, ready: make(chan struct{})}
	if p.open == nil {
		p.open = map[string]*shared{}
	}
	p.open[s.key] = s
	go s.connect(dialing, *cfg) // release waits for it
	return s
}

func (s *shared) connect(ctx context.Context, cfg Config) {
	defer close(s.ready)
	if s.client, s.err = s.pool.dial(ctx, &cfg); s.err != nil {
		s.forget()
	}
}

// forget takes the client out of the pool, so that the next one is made anew.
func (s *shared) forget() {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.remove()
}

// remove is forget; the pool's lock is held.
func (s *shared) remove() {
	if s.pool.open[s.key] == s {
		delete(s.pool.open, s.key)
	}
}

// release gives the client back; the last one closes it.
func (s *shared) release() error {
	s.pool.mu.Lock()
	s.users--
	last := s.users == 0
	if last {
		s.remove()
	}
	s.pool.mu.Unlock()
	if !last {
		return nil
	}
	s.cancel()
	<-s.ready
	if s.client == nil {
		return nil
	}
	return s.client.Close()
}

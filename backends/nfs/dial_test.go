package nfs

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"

	"sluice/backends/nfs/remote"
	"sluice/block"
)

// attempts dials with versions that end as told, and lists which were tried.
func attempts(t *testing.T, url string, outcome map[string]error) (tried []string, err error) {
	t.Helper()
	list := slices.Clone(versions)
	for i, v := range list {
		list[i].dial = func(context.Context, *Config) (remote.Client, error) {
			tried = append(tried, v.name)
			return &fakeClient{}, outcome[v.name]
		}
	}
	cfg := config(t, url)
	_, err = dial(background, &cfg, list)
	return tried, err
}

func TestVersions(t *testing.T) {
	refused := &block.Error{Kind: block.Unsupported, Op: "EXCHANGE_ID", Off: -1}
	slow := fmt.Errorf("no answer: %w", block.Transient)
	denied := fmt.Errorf("not for you: %w", block.Permission)
	nobody := fmt.Errorf("connect: %w", syscall.ECONNREFUSED)
	for _, c := range []struct {
		url     string
		outcome map[string]error
		tried   []string
		kind    block.Kind
	}{
		{"nfs://filer/a", nil, []string{"4.2"}, block.OK},
		{"nfs://filer/a", map[string]error{"4.2": refused}, []string{"4.2", "4.1"}, block.OK},
		{"nfs://filer/a", map[string]error{"4.2": refused, "4.1": refused}, []string{"4.2", "4.1", "3"}, block.OK},
		{"nfs://filer/a", map[string]error{"4.2": refused, "4.1": refused, "3": refused}, []string{"4.2", "4.1", "3"}, block.Unsupported},
		{"nfs://filer/a", map[string]error{"4.2": slow}, []string{"4.2"}, block.Transient},
		{"nfs://filer/a", map[string]error{"4.2": denied}, []string{"4.2"}, block.Permission},
		{"nfs://filer/a", map[string]error{"4.2": refused, "4.1": slow}, []string{"4.2", "4.1"}, block.Transient},
		{"nfs://filer/a", map[string]error{"4.2": nobody}, []string{"4.2", "3"}, block.OK},
		{"nfs://filer/a", map[string]error{"4.2": nobody, "3": slow}, []string{"4.2", "3"}, block.Transient},
		{"nfs://filer:2049/a", map[string]error{"4.2": nobody}, []string{"4.2"}, block.Transient},
		{"nfs://filer/a?vers=4", map[string]error{"4.2": refused, "4.1": refused}, []string{"4.2", "4.1"}, block.Unsupported},
		{"nfs://filer/a?vers=4.2", map[string]error{"4.2": refused}, []string{"4.2"}, block.Unsupported},
		{"nfs://filer/a?vers=4.1", nil, []string{"4.1"}, block.OK},
		{"nfs://filer/a?vers=3", nil, []string{"3"}, block.OK},
	} {
		tried, err := attempts(t, c.url, c.outcome)
		if !slices.Equal(tried, c.tried) || block.KindOf(err) != c.kind {
			t.Errorf("%s, %v: tried %v, %v", c.url, c.outcome, tried, err)
		}
	}
}

func TestClientsAreShared(t *testing.T) {
	s := newServer()
	s.file(image, make([]byte, 8192))
	p := s.pool()
	one, other := config(t, "nfs://filer"+image), config(t, "nfs://filer"+image+"?nconnect=2")
	var devices []*Device
	for range 2 {
		d, err := open(background, p, one, block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, d)
	}
	store, err := openStore(background, p, one.at("/images"))
	if err != nil {
		t.Fatal(err)
	}
	if n := s.counted(&s.clients); n != 1 {
		t.Errorf("%d clients", n)
	}
	d, err := open(background, p, other, block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := s.counted(&s.clients); n != 2 {
		t.Errorf("%d clients for two configurations", n)
	}
	closeAll(t, store.Close, d.Close, devices[0].Close)
	if n := s.counted(&s.clients); n != 1 {
		t.Errorf("%d clients while one Device is open", n)
	}
	closeAll(t, devices[1].Close, devices[1].Close)
	if n := s.counted(&s.clients); n != 0 || len(p.open) != 0 {
		t.Errorf("%d clients left", n)
	}
}

func closeAll(t testing.TB, closers ...func() error) {
	t.Helper()
	for _, c := range closers {
		if err := c(); err != nil {
			t.Error(err)
		}
	}
}

// TestOneDialForMany: those who come at the same time share an attempt, which goes
// on when who began it gives up, and whose failure is not kept.
func TestOneDialForMany(t *testing.T) {
	dialling, let := make(chan struct{}, 8), make(chan error)
	p := &pool{dial: func(ctx context.Context, _ *Config) (remote.Client, error) {
		dialling <- struct{}{}
		select {
		case err := <-let:
			return &fakeClient{newServer()}, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	cfg := config(t, "nfs://filer/a")
	first, cancel := context.WithCancel(background)
	gaveUp := make(chan error)
	go func() { _, err := p.get(first, &cfg); gaveUp <- err }()
	<-dialling
	s := p.join(background, &cfg)
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	let <- nil
	<-s.ready
	if s.err != nil || len(dialling) != 0 {
		t.Error(s.err, len(dialling))
	}
	closeAll(t, s.release)

	failure := errors.New("no")
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if _, err := p.get(background, &cfg); !errors.Is(err, failure) {
				t.Error(err)
			}
		})
	}
	for joined := 0; joined < 3; {
		p.mu.Lock()
		for _, s := range p.open {
			joined = s.users
		}
		p.mu.Unlock()
		runtime.Gosched()
	}
	let <- failure
	all.Wait()
	if len(p.open) != 0 {
		t.Error("a failure was kept")
	}
	last, cancel := context.WithCancel(background)
	cancel()
	if _, err := p.get(last, &cfg); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

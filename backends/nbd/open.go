package nbd

import (
	"context"
	"slices"
	"strings"

	"sluice/block"
	proto "sluice/nbd"
)

// Open connects to the export that the URL names. Of the options only ReadOnly and
// Held mean something: caching and locking are the server's.
func Open(ctx context.Context, url string, opts block.OpenOptions) (block.Device, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	return cfg.open(ctx, opts)
}

func (cfg *Config) open(ctx context.Context, opts block.OpenOptions) (block.Device, error) {
	if opts.Held && !cfg.ReconnectAsked {
		held := *cfg
		held.Reconnect, cfg = proto.ReconnectFor(heldReconnect), &held
	}
	client, err := proto.Dial(ctx, cfg.URI.String(), cfg.client(opts.ReadOnly))
	if err != nil {
		return nil, err
	}
	have := client.Bitmaps()
	for _, name := range cfg.Bitmaps {
		if !slices.Contains(have, name) {
			_ = client.Close()
			return nil, block.Errorf(block.NotFound, "open", client.String(), -1, "the server has no bitmap %q for it", name)
		}
	}
	return client, nil
}

// OpenStore gives the exports of the server that the URL names; the export's name
// in it does not matter.
func OpenStore(_ context.Context, url string) (block.Store, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.URI.Export = ""
	return &Store{cfg: cfg}, nil
}

// Store is a server as a place of images: its exports can be listed and opened.
// NBD has no way to create or remove one. It holds no connection.
type Store struct{ cfg Config }

// List implements block.Store. Exports lie in one folder, whatever slashes are in
// their names. Their size is 0 where the server does not tell it.
func (s *Store) List(ctx context.Context, dir string) ([]block.Entry, error) {
	if dir != "" {
		return nil, block.Errorf(block.NotFound, "list", s.cfg.URI.String(), -1, "an NBD server has no folders (%q)", dir)
	}
	exports, err := proto.List(ctx, s.cfg.URI.String(), s.cfg.client(true))
	if err != nil {
		return nil, err
	}
	entries := make([]block.Entry, 0, len(exports))
	for _, e := range exports {
		entries = append(entries, entry(e.Name, e.Size))
	}
	slices.SortFunc(entries, func(a, b block.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

func entry(name string, size int64) block.Entry {
	return block.Entry{Name: name, Size: size, Allocated: -1, Kind: "export"}
}

// Stat implements block.Store. It connects to the export, since a server may not
// list it.
func (s *Store) Stat(ctx context.Context, name string) (block.Entry, error) {
	dev, err := s.Open(ctx, name, block.OpenOptions{ReadOnly: true})
	if err != nil {
		return block.Entry{}, err
	}
	defer func() { _ = dev.Close() }()
	return entry(name, dev.Info().Size), nil
}

// Open implements block.Store.
func (s *Store) Open(ctx context.Context, name string, opts block.OpenOptions) (block.Device, error) {
	cfg := s.cfg
	cfg.URI.Export = name
	return cfg.open(ctx, opts)
}

// Create implements block.Store; it is Unsupported.
func (s *Store) Create(_ context.Context, name string, _ block.CreateOptions) error {
	return s.unsupported("create", name)
}

// Remove implements block.Store; it is Unsupported.
func (s *Store) Remove(_ context.Context, name string) error { return s.unsupported("remove", name) }

func (s *Store) unsupported(op, name string) error {
	return block.Errorf(block.Unsupported, op, name, -1, "NBD cannot %s exports", op)
}

// Close implements block.Store.
func (s *Store) Close() error { return nil }

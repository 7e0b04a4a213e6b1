package apiclient

import (
	"context"
	"net/http"
	"net/url"

	"sluice/gateway"
	"sluice/gateway/spec"
	"sluice/gateway/wire"
)

// Daemon asks what the daemon says of itself.
func (c *Client) Daemon(ctx context.Context) (d wire.Daemon, err error) {
	return d, c.call(ctx, http.MethodGet, "/v1/status", nil, &d)
}

// Reload lets the daemon read its configuration anew.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/reload", nil, nil)
}

// List gives all exports, in the order of their names.
func (c *Client) List(ctx context.Context) ([]gateway.Status, error) {
	var all wire.Exports
	err := c.call(ctx, http.MethodGet, "/v1/exports", nil, &all)
	return all.Exports, err
}

// Add adds an export. When it returns, the export is served, and will be after a
// restart of the daemon.
func (c *Client) Add(ctx context.Context, s spec.Spec) (st gateway.Status, err error) {
	if err := s.Check(); err != nil {
		return st, err
	}
	return st, c.call(ctx, http.MethodPost, "/v1/exports", s, &st)
}

// Show describes an export.
func (c *Client) Show(ctx context.Context, name string) (st gateway.Status, err error) {
	return st, c.about(ctx, request{http.MethodGet, name, ""}, nil, &st)
}

// Remove removes an export; the image stays. One that clients use is busy, unless
// it is forced.
func (c *Client) Remove(ctx context.Context, name string, force bool) error {
	query := ""
	if force {
		query = "?force=true"
	}
	return c.about(ctx, request{http.MethodDelete, name, query}, nil, nil)
}

// Replace replaces the settings of an export.
func (c *Client) Replace(ctx context.Context, name string, s spec.Settings) (st gateway.Status, err error) {
	return st, c.about(ctx, request{http.MethodPut, name, "/settings"}, s, &st)
}

// Change changes some settings of an export: members with the names and forms
// that spec.Settings has in JSON. What is not there stays, nil brings back the
// default.
func (c *Client) Change(ctx context.Context, name string, members map[string]any) (st gateway.Status, err error) {
	return st, c.about(ctx, request{http.MethodPatch, name, "/settings"}, members, &st)
}

// Resize changes the size of an export and of its image, in bytes. Less than the
// present size is refused, unless shrink permits to lose what lies behind.
func (c *Client) Resize(ctx context.Context, name string, size int64, shrink bool) (st gateway.Status, err error) {
	return st, c.about(ctx, request{http.MethodPost, name, "/resize"}, wire.Resize{Size: spec.Size(size), Shrink: shrink}, &st)
}

// Resume lets an export that is held or frozen go on.
func (c *Client) Resume(ctx context.Context, name string) (st gateway.Status, err error) {
	return st, c.about(ctx, request{http.MethodPost, name, "/resume"}, nil, &st)
}

// Stats counts the requests of an export, or of all when the name is empty.
func (c *Client) Stats(ctx context.Context, name string) ([]gateway.Stats, error) {
	if name == "" {
		var all wire.AllStats
		err := c.call(ctx, http.MethodGet, "/v1/stats", nil, &all)
		return all.Stats, err
	}
	var one gateway.Stats
	if err := c.about(ctx, request{http.MethodGet, name, "/stats"}, nil, &one); err != nil {
		return nil, err
	}
	return []gateway.Stats{one}, nil
}

// request is one about an export.
type request struct{ method, name, rest string }

// about asks about one export. Names that none can have would lead to another
// path.
func (c *Client) about(ctx context.Context, r request, in, out any) error {
	if err := spec.CheckName(r.name); err != nil {
		return err
	}
	return c.call(ctx, r.method, "/v1/exports/"+url.PathEscape(r.name)+r.rest, in, out)
}

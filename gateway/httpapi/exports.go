package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"sluice/backends/location"
	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/spec"
	"sluice/gateway/wire"
)

// named is a request about one export. huma sees no members of embedded types that
// are not exported, so others repeat it.
type named struct {
	Name string `path:"name" doc:"the export's name, percent-encoded"`
}

// one is an answer about one export.
type one struct{ Body gateway.Status }

type (
	list struct{ Body wire.Exports }
	add  struct{ Body spec.Spec }
)

type remove struct {
	Name  string `path:"name" doc:"the export's name, percent-encoded"`
	Force bool   `query:"force" doc:"end the clients that use it, after the requests that have arrived"`
}

type resize struct {
	Name string `path:"name" doc:"the export's name, percent-encoded"`
	Body wire.Resize
}

func (s *Server) exportRoutes(api huma.API) {
	route(api, huma.Operation{
		OperationID: "list-exports", Method: http.MethodGet, Path: "/v1/exports",
		Summary: "List the exports", Tags: []string{"exports"},
	}, s.list)
	route(api, huma.Operation{
		OperationID: "add-export", Method: http.MethodPost, Path: "/v1/exports", DefaultStatus: http.StatusCreated,
		Summary: "Add an export", Tags: []string{"exports"},
		Description: "When it is answered, the export is served, and will be after a restart of the daemon. When it fails, nothing is left behind.",
	}, s.add)
	route(api, huma.Operation{
		OperationID: "show-export", Method: http.MethodGet, Path: "/v1/exports/{name}",
		Summary: "Show an export", Tags: []string{"exports"},
	}, s.show)
	route(api, huma.Operation{
		OperationID: "remove-export", Method: http.MethodDelete, Path: "/v1/exports/{name}",
		Summary: "Remove an export", Tags: []string{"exports"},
		Description: "The image stays. An export that clients use is busy, unless it is forced.",
	}, s.remove)
	route(api, huma.Operation{
		OperationID: "resize-export", Method: http.MethodPost, Path: "/v1/exports/{name}/resize",
		Summary: "Change the size of an export and of its image", Tags: []string{"exports"},
		Description: "NBD clients see the new size when they connect again, users of the FUSE file at once.",
	}, s.resize)
	route(api, huma.Operation{
		OperationID: "resume-export", Method: http.MethodPost, Path: "/v1/exports/{name}/resume",
		Summary: "Let an export that is held or frozen go on", Tags: []string{"exports"},
		Description: "A held export tries its storage again at once; a frozen one takes changes again.",
	}, s.resume)
}

// shown makes a Status ready for an answer: the gateway leaves passwords out of
// URLs, and this sees to it; lists are lists, not null.
func shown(st gateway.Status) gateway.Status {
	st.Spec.URL = location.Redact(st.Spec.URL)
	if st.Capabilities == nil {
		st.Capabilities = []string{}
	}
	if st.URIs == nil {
		st.URIs = []string{}
	}
	return st
}

// answered makes an answer of what the gateway gave.
func answered(st gateway.Status, err error, op, name string) (*one, error) {
	if err != nil {
		return nil, block.Wrap(err, op, name, -1)
	}
	return &one{shown(st)}, nil
}

func (s *Server) list(context.Context, *struct{}) (*list, error) {
	all := s.cfg.Gateway.List()
	out := make([]gateway.Status, len(all))
	for i, st := range all {
		out[i] = shown(st)
	}
	slices.SortFunc(out, func(a, b gateway.Status) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	return &list{wire.Exports{Exports: out}}, nil
}

func (s *Server) add(ctx context.Context, in *add) (*one, error) {
	if err := in.Body.Check(); err != nil {
		return nil, err
	}
	st, err := s.cfg.Gateway.Add(ctx, in.Body)
	return answered(st, err, "add export", in.Body.Name)
}

func (s *Server) show(_ context.Context, in *named) (*one, error) {
	if err := spec.CheckName(in.Name); err != nil {
		return nil, err
	}
	st, err := s.cfg.Gateway.Show(in.Name)
	return answered(st, err, "show export", in.Name)
}

func (s *Server) remove(ctx context.Context, in *remove) (*struct{}, error) {
	if err := spec.CheckName(in.Name); err != nil {
		return nil, err
	}
	return nil, block.Wrap(s.cfg.Gateway.Remove(ctx, in.Name, in.Force), "remove export", in.Name, -1)
}

// resize refuses by mistake to lose what lies behind the new end. Other changes
// wait meanwhile, so that the size that was looked at is the one that is changed.
func (s *Server) resize(ctx context.Context, in *resize) (*one, error) {
	const op = "resize export"
	release, err := s.change(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	to := int64(in.Body.Size)
	if !in.Body.Shrink {
		st, err := s.cfg.Gateway.Show(in.Name)
		if err != nil {
			return nil, block.Wrap(err, op, in.Name, -1)
		}
		if to < st.Size {
			return nil, block.Errorf(block.Invalid, op, in.Name, -1,
				"%d bytes are less than the %d it has; the rest would be lost (shrink permits that)", to, st.Size)
		}
	}
	st, err := s.cfg.Gateway.Resize(ctx, in.Name, to)
	return answered(st, err, op, in.Name)
}

func (s *Server) resume(ctx context.Context, in *named) (*one, error) {
	if err := spec.CheckName(in.Name); err != nil {
		return nil, err
	}
	st, err := s.cfg.Gateway.Resume(ctx, in.Name)
	return answered(st, err, "resume export", in.Name)
}

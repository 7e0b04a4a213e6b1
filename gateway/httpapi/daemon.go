package httpapi

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/spec"
	"sluice/gateway/wire"
)

type (
	daemon struct{ Body wire.Daemon }
	counts struct{ Body wire.AllStats }
	count  struct{ Body gateway.Stats }
)

func (s *Server) daemonRoutes(api huma.API) {
	route(api, huma.Operation{
		OperationID: "daemon-status", Method: http.MethodGet, Path: "/v1/status",
		Summary: "Show the daemon itself", Tags: []string{"daemon"},
	}, s.status)
	route(api, huma.Operation{
		OperationID: "reload", Method: http.MethodPost, Path: "/v1/reload",
		Summary: "Read the configuration anew", Tags: []string{"daemon"},
		Description: "As SIGHUP does. A file that is not right changes nothing; another failure names what is not as the file wants it, and the rest is.",
	}, s.reload)
	route(api, huma.Operation{
		OperationID: "all-stats", Method: http.MethodGet, Path: "/v1/stats",
		Summary: "Count the requests of all exports", Tags: []string{"statistics"},
		Description: "Counts begin when an export is opened. Times are seconds.",
	}, s.allStats)
	route(api, huma.Operation{
		OperationID: "export-stats", Method: http.MethodGet, Path: "/v1/exports/{name}/stats",
		Summary: "Count the requests of an export", Tags: []string{"statistics"},
	}, s.oneStats)
}

func (s *Server) status(context.Context, *struct{}) (*daemon, error) {
	d := wire.Daemon{
		Version: s.version(), PID: os.Getpid(), Started: s.cfg.Started,
		Exports: len(s.cfg.Gateway.List()),
	}
	if s.cfg.Daemon != nil {
		d.Addresses, d.Problems = s.cfg.Daemon()
	}
	d.Addresses.API = append([]string{}, d.Addresses.API...) // a list, not null
	d.Addresses.NBD = append([]string{}, d.Addresses.NBD...)
	return &daemon{d}, nil
}

func (s *Server) reload(ctx context.Context, _ *struct{}) (*struct{}, error) {
	const op = "reload configuration"
	if s.cfg.Reload == nil {
		return nil, block.Errorf(block.Unsupported, op, "", -1, "the daemon has none")
	}
	return nil, block.Wrap(s.cfg.Reload(ctx), op, "", -1)
}

func (s *Server) allStats(context.Context, *struct{}) (*counts, error) {
	all, err := s.stats("")
	return &counts{wire.AllStats{Stats: all}}, err
}

func (s *Server) oneStats(_ context.Context, in *named) (*count, error) {
	if err := spec.CheckName(in.Name); err != nil {
		return nil, err
	}
	all, err := s.stats(in.Name)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, block.Errorf(block.NotFound, "count requests of", in.Name, -1, "")
	}
	return &count{all[0]}, nil
}

// stats asks the gateway; lists are lists, not null.
func (s *Server) stats(name string) ([]gateway.Stats, error) {
	all, err := s.cfg.Gateway.Stats(name)
	if err != nil {
		return nil, block.Wrap(err, "count requests of", name, -1)
	}
	out := make([]gateway.Stats, len(all))
	for i, st := range all {
		out[i] = gateway.Stats{Name: st.Name, Ops: append([]gateway.OpStats{}, st.Ops...)}
	}
	slices.SortFunc(out, func(a, b gateway.Stats) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

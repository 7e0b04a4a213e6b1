package wire

import (
	"net/http"

	"sluice/block"
)

// kinds are the names that kinds of failure have for programs, which texts for
// people are not fit for, and the HTTP status that goes with each.
var kinds = [...]struct {
	name   string
	status int
}{
	block.OK:          {"ok", http.StatusOK},
	block.IO:          {"io", http.StatusInternalServerError},
	block.Invalid:     {"invalid", http.StatusUnprocessableEntity},
	block.OutOfRange:  {"out-of-range", http.StatusUnprocessableEntity},
	block.NoSpace:     {"no-space", http.StatusInsufficientStorage},
	block.ReadOnly:    {"read-only", http.StatusConflict},
	block.Permission:  {"permission", http.StatusForbidden},
	block.NotFound:    {"not-found", http.StatusNotFound},
	block.Exists:      {"exists", http.StatusConflict},
	block.Busy:        {"busy", http.StatusConflict},
	block.Corrupt:     {"corrupt", http.StatusInternalServerError},
	block.Transient:   {"transient", http.StatusServiceUnavailable},
	block.Fenced:      {"fenced", http.StatusConflict},
	block.Closed:      {"closed", http.StatusServiceUnavailable},
	block.Unsupported: {"unsupported", http.StatusNotImplemented},
	block.Canceled:    {"canceled", http.StatusServiceUnavailable},
}

// known gives the kind itself, or IO for one that this program has no name for.
func known(k block.Kind) block.Kind {
	if int(k) >= len(kinds) {
		return block.IO
	}
	return k
}

// KindName names a kind of failure.
func KindName(k block.Kind) string { return kinds[known(k)].name }

// KindNames are all names of failures.
func KindNames() []string {
	names := make([]string, 0, len(kinds)-1)
	for k := block.IO; int(k) < len(kinds); k++ {
		names = append(names, kinds[k].name)
	}
	return names
}

// KindNamed gives the kind of that name; IO where there is none, since a newer
// daemon may know more of them.
func KindNamed(name string) block.Kind {
	for k := block.IO; int(k) < len(kinds); k++ {
		if kinds[k].name == name {
			return k
		}
	}
	return block.IO
}

// HTTPStatus gives the status of an answer that tells of such a failure.
func HTTPStatus(k block.Kind) int { return kinds[known(k)].status }

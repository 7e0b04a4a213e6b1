package metrics

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// checkTime is how long all health checks of one answer may take together.
const checkTime = 5 * time.Second

// check is a registered health check.
type check struct {
	name string
	ask  func(context.Context) error
}

// Check registers a health check: as long as ask fails, /healthz answers 503
// with a line "name: error". ask may be called by several goroutines at once
// and has to return when its context ends. The function returned takes the
// check away; a call of ask that is under way may still be running then.
func (r *Registry) Check(name string, ask func(context.Context) error) (remove func()) {
	c := &check{name: name, ask: ask}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checks[c] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.checks, c)
	}
}

// complaints runs all checks and gives a line for each that fails, sorted.
func (r *Registry) complaints(ctx context.Context) []string {
	r.mu.Lock()
	checks := slices.Collect(maps.Keys(r.checks))
	r.mu.Unlock()
	var lines []string
	for _, c := range checks {
		if err := c.ask(ctx); err != nil {
			lines = append(lines, oneLine(c.name+": "+err.Error()))
		}
	}
	slices.Sort(lines)
	return lines
}

// serveHealth answers /healthz.
func (r *Registry) serveHealth(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), checkTime)
	defer cancel()
	lines := r.complaints(ctx)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if len(lines) == 0 {
		_, _ = fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = fmt.Fprintln(w, strings.Join(lines, "\n"))
}

// oneLine keeps a text from looking like several lines.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

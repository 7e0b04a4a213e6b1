package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/backends/location"
	"sluice/formats"
	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
	"sluice/nbd"
)

// problem is a value that makes no sense, and the path of its key.
type problem struct {
	path, text string
}

func wrong(path, format string, args ...any) *problem {
	return &problem{path, fmt.Sprintf(format, args...)}
}

// maxBusyPoll is the longest time that a processor may be kept busy for nothing.
const maxBusyPoll = time.Millisecond

// checker goes through a Config. line gives the line of a path, for texts that
// name a second one; 0 when it is not known.
type checker struct {
	c    *Config
	line func(path string) int
	used map[endpoint.Address]string // addresses, and the paths where they are given
}

// check gives all problems, at most one for each part of the file and each export.
func (c *Config) check(line func(path string) int) (all []*problem) {
	k := &checker{c, line, map[endpoint.Address]string{}}
	for _, step := range []func() *problem{k.places, k.metrics, k.numbers, k.tls, k.apiTLS, k.fuse} {
		if p := step(); p != nil {
			all = append(all, p)
		}
	}
	return append(all, k.exports()...)
}

// places checks where the daemon is reached and where it keeps things.
func (k *checker) places() *problem {
	if p := k.addresses("api", "api", k.c.API); p != nil {
		return p
	}
	if p := k.addresses("nbd", "nbd", k.c.NBD); p != nil {
		return p
	}
	for _, f := range []struct{ name, path string }{{"fuse", k.c.FUSE}, {"state", k.c.State}} {
		if p := absolute(f.name, f.path); p != nil {
			return p
		}
	}
	return nil
}

// addresses checks a list, whose key is named as called.
func (k *checker) addresses(path, called string, list []string) *problem {
	for i, s := range list {
		at := element(path, i)
		a, err := endpoint.Parse(s)
		if err != nil {
			return wrong(at, "%s: %q: %v", called, s, errors.Unwrap(err))
		}
		if name, ok := strings.CutPrefix(s, "unix:"); ok && !filepath.IsAbs(name) {
			return wrong(at, "%s: %q: the path has to be absolute", called, s)
		}
		if before, ok := k.used[a]; ok && a.Port != "0" {
			return wrong(at, "%s: %q is given already%s", called, s, k.onLine(before))
		}
		k.used[a] = at
	}
	return nil
}

// onLine names a line, where it is known.
func (k *checker) onLine(path string) string {
	if n := k.line(path); n > 0 {
		return fmt.Sprintf(" on line %d", n)
	}
	return ""
}

func absolute(key, path string) *problem {
	switch {
	case path == "" || filepath.IsAbs(path) && !strings.ContainsRune(path, 0):
		return nil
	case filepath.IsAbs(path):
		return wrong(key, "%s: %q is no path", key, path)
	}
	return wrong(key, "%s: %q: the path has to be absolute", key, path)
}

// metrics checks HOST:PORT. The host may be looked up later.
func (k *checker) metrics() *problem {
	if k.c.Metrics == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(k.c.Metrics)
	if err != nil || host == "" {
		return wrong("metrics", "metrics: %q is not HOST:PORT (0.0.0.0:PORT or [::]:PORT listens everywhere)", k.c.Metrics)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return wrong("metrics", "metrics: %q is not a port", port)
	}
	return nil
}

// numbers checks level and bounds.
func (k *checker) numbers() *problem {
	c := k.c
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return wrong("log_level", "log_level: %q is none of debug, info, warn and error", c.LogLevel)
	}
	for _, f := range []struct {
		key   string
		value int64
	}{
		{"max_connections", int64(c.MaxConnections)},
		{"busy_poll", int64(c.BusyPoll)},
		{"shutdown_timeout", int64(c.ShutdownTimeout)},
		{"slow_request", int64(c.SlowRequest)},
	} {
		if f.value < 0 {
			return wrong(f.key, "%s is negative", f.key)
		}
	}
	if c.BusyPoll.Std() > maxBusyPoll {
		return wrong("busy_poll", "busy_poll: %v is more than %v", c.BusyPoll, maxBusyPoll)
	}
	return nil
}

// tls checks how NBD clients are spoken to.
func (k *checker) tls() *problem {
	t := &k.c.TLS
	if !slices.Contains([]string{"", "off", "optional", "required"}, t.Mode) {
		return wrong("tls.mode", "tls.mode: %q is none of off, optional and required", t.Mode)
	}
	if p := files("tls", t.Certs); p != nil {
		return p
	}
	switch {
	case t.Mode == "off" && t.given():
		return wrong("tls.mode", `tls.mode "off" goes with no other key of [tls]`)
	case t.Mode == "off", t.Mode == "" && !t.given():
	case t.Cert == "" || t.Key == "":
		return wrong("tls", "tls needs both cert and key")
	case len(t.Allow) > 0 && t.CA == "":
		return wrong("tls.allow", "tls.allow needs tls.ca, which proves the clients' names")
	}
	return nil
}

// apiTLS checks that the API is on the network only for those who can prove who
// they are.
func (k *checker) apiTLS() *problem {
	t := &k.c.APITLS
	if p := files("api_tls", *t); p != nil {
		return p
	}
	whole := t.Cert != "" && t.Key != "" && t.CA != ""
	if t.given() && !whole {
		return wrong("api_tls", "api_tls needs cert, key and ca: clients of the API must have a certificate")
	}
	for i, s := range k.c.API {
		if strings.HasPrefix(s, "tcp:") && !whole {
			return wrong(element("api", i), "api: %q needs [api_tls]: the API is on TCP only with certificates on both sides", s)
		}
	}
	return nil
}

func (t *Certs) given() bool { return t.Cert != "" || t.Key != "" || t.CA != "" || len(t.Allow) > 0 }

func files(table string, t Certs) *problem {
	for _, f := range []struct{ name, path string }{{"cert", t.Cert}, {"key", t.Key}, {"ca", t.CA}} {
		if p := absolute(table+"."+f.name, f.path); p != nil {
			return p
		}
	}
	for i, name := range t.Allow {
		if name == "" {
			return wrong(element(table+".allow", i), "%s.allow has an empty name", table)
		}
	}
	return nil
}

// maxID is the largest number of a user or group; the next one means none.
const maxID = 1<<32 - 2

func (k *checker) fuse() *problem {
	o := &k.c.FUSEOptions
	switch {
	case o.UID < 0 || o.UID > maxID:
		return wrong("fuse_options.uid", "fuse_options.uid: %d is no user's number", o.UID)
	case o.GID < 0 || o.GID > maxID:
		return wrong("fuse_options.gid", "fuse_options.gid: %d is no group's number", o.GID)
	}
	return nil
}

// exports checks each export, and that names are there once.
func (k *checker) exports() (all []*problem) {
	first := map[string]string{}
	for i := range k.c.Exports {
		s, at := &k.c.Exports[i], element("export", i)
		p := k.export(s, at)
		if before, ok := first[s.Name]; ok && p == nil {
			p = wrong(at+".name", "export %q is there already%s", s.Name, k.onLine(before))
		}
		if p != nil {
			all = append(all, p)
			continue
		}
		first[s.Name] = at + ".name"
	}
	return all
}

func (k *checker) export(s *spec.Spec, at string) *problem {
	if err := s.Check(); err != nil {
		var f *spec.FieldError
		if !errors.As(err, &f) {
			return wrong(at, "%v", err)
		}
		return wrong(at+"."+f.Field, "export %q: %s", s.Name, f.Text)
	}
	if p := image(s, at); p != nil {
		return p
	}
	// The name is an NBD export's too.
	if err := new(nbd.Exports).Add(&nbd.Export{Name: s.Name, Description: s.Description}); err != nil {
		return wrong(at, "export %q: %v", s.Name, errors.Unwrap(err))
	}
	if p := k.addresses(at+".nbd", fmt.Sprintf("export %q: nbd", s.Name), s.NBD); p != nil {
		return p
	}
	if len(s.Allow) > 0 && k.c.TLS.CA == "" {
		return wrong(at+".allow", "export %q: allow needs tls.ca, which proves the clients' names", s.Name)
	}
	if len(s.Faults) > 0 && !k.c.AllowFaults {
		return wrong(at+".faults", "export %q: faults need allow_faults = true", s.Name)
	}
	return nil
}

// image checks what can be known of an image without looking at it. Its errors
// do not repeat the URL, which may hold a password.
func image(s *spec.Spec, at string) *problem {
	switch {
	case location.Scheme(s.URL) != "":
		if _, err := location.Parse(s.URL); err != nil {
			return wrong(at+".url", "export %q: url: %v", s.Name, errors.Unwrap(err))
		}
	case !filepath.IsAbs(s.URL):
		return wrong(at+".url", "export %q: url: %q is neither an absolute path nor a URL", s.Name, s.URL)
	}
	if s.Format != "" && !formats.Known(s.Format) {
		return wrong(at+".format", "export %q: format: %q is not known (%s)", s.Name, s.Format, strings.Join(formats.Names(), ", "))
	}
	return nil
}

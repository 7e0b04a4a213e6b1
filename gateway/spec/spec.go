// Package spec says what an export is asked to be: the form that the daemon's
// configuration, its API and its state have in common. The gateway makes
// exports of it.
//
// Names in JSON and TOML are the same. Durations are text ("30s"), sizes numbers
// of bytes or text ("10M"). The package starts no goroutine and holds no state.
package spec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice/block"
	"sluice/filters/fault"
	"sluice/filters/hold"
	"sluice/filters/throttle"
)

// Spec describes an export.
type Spec struct {
	// Name is the export's name for NBD clients, and its file's name under FUSE.
	Name string `json:"name" toml:"name"`
	// URL names the image.
	URL string `json:"url" toml:"url"`
	// Format is the image's format; empty: by the name's extension, else raw.
	Format string `json:"format,omitempty" toml:"format,omitempty"`
	// Description is shown to clients that list exports.
	Description string `json:"description,omitempty" toml:"description,omitempty"`

	ReadOnly bool `json:"read_only,omitempty" toml:"read_only,omitempty"`
	Direct   bool `json:"direct,omitempty" toml:"direct,omitempty"`     // O_DIRECT
	Share    bool `json:"share,omitempty" toml:"share,omitempty"`       // permit other writers
	Unlocked bool `json:"unlocked,omitempty" toml:"unlocked,omitempty"` // take no image lock

	// NBD are addresses of the export's own, besides the daemon's; the export is
	// the default export there.
	NBD []string `json:"nbd,omitempty" toml:"nbd,omitempty"`
	// MaxConnections bounds its NBD clients; 0: only the daemon's bound.
	MaxConnections int `json:"max_connections,omitempty" toml:"max_connections,omitempty"`
	// Allow are the common names of certificates that let a client in; empty: any
	// that the daemon lets in.
	Allow []string `json:"allow,omitempty" toml:"allow,omitempty"`

	// NoFUSE leaves the export out of the daemon's FUSE mount.
	NoFUSE bool `json:"no_fuse,omitempty" toml:"no_fuse,omitempty"`
	// Passthrough lets the kernel read and write the local file behind the FUSE
	// file by itself. What it moves is not throttled, held or counted, and the
	// device stack cannot be exchanged meanwhile.
	Passthrough bool `json:"passthrough,omitempty" toml:"passthrough,omitempty"`

	Settings
}

// Settings are the parts of a Spec that can be changed while the export is
// served. In JSON and TOML they lie beside the others.
type Settings struct {
	OnError  OnError  `json:"on_error,omitzero" toml:"on_error,omitempty"`
	Throttle Throttle `json:"throttle,omitzero" toml:"throttle,omitempty"`
	// SlowRequest is how long a request may take before it is logged; 0: the
	// daemon's default.
	SlowRequest Duration `json:"slow_request,omitempty" toml:"slow_request,omitempty"`
	// Faults are rules of package filters/fault, for rehearsals. A daemon takes
	// them only when it was told to (--allow-faults).
	Faults []string `json:"faults,omitempty" toml:"faults,omitempty"`
}

// Differ gives the keys, as in TOML, in which two differ.
func (s Settings) Differ(other Settings) []string {
	var keys []string
	for _, k := range []struct {
		name string
		same bool
	}{
		{"on_error", s.OnError == other.OnError},
		{"throttle", s.Throttle == other.Throttle},
		{"slow_request", s.SlowRequest == other.SlowRequest},
		{"faults", slices.Equal(s.Faults, other.Faults)},
	} {
		if !k.same {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// OnError is the error policy.
type OnError struct {
	// Policy is "hold" (also when empty), "error" or "read-only".
	Policy string `json:"policy,omitempty" toml:"policy,omitempty"`
	// Limit is how long hold waits; 0: for ever.
	Limit Duration `json:"limit,omitempty" toml:"limit,omitempty"`
	// NoSpace makes a full medium one of the failures that the policy is for.
	NoSpace bool `json:"no_space,omitempty" toml:"no_space,omitempty"`
}

// Throttle bounds reads and writes apart; what is 0 is not bounded.
type Throttle struct {
	ReadIOPS   int64    `json:"read_iops,omitempty" toml:"read_iops,omitempty"`
	WriteIOPS  int64    `json:"write_iops,omitempty" toml:"write_iops,omitempty"`
	ReadBytes  Size     `json:"read_bytes,omitempty" toml:"read_bytes,omitempty"`   // a second
	WriteBytes Size     `json:"write_bytes,omitempty" toml:"write_bytes,omitempty"` // a second
	Burst      Duration `json:"burst,omitempty" toml:"burst,omitempty"`             // saved up at most; 0: 100ms
}

// maxName is the longest name of a file.
const maxName = 255

// CheckName checks an export's name: it has to do as a file's name, as an NBD
// export's and on a terminal.
func CheckName(name string) error {
	why := ""
	switch {
	case name == "":
		why = "is empty"
	case len(name) > maxName:
		why = fmt.Sprintf("has %d bytes, %d are the limit", len(name), maxName)
	case !utf8.ValidString(name):
		why = "is not UTF-8"
	case name == "." || name == ".." || strings.Contains(name, "/"):
		why = "cannot be a file's name"
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		why = "has characters that cannot be printed"
	default:
		return nil
	}
	return block.Errorf(block.Invalid, "check export", fmt.Sprintf("%q", name), -1, "%w", &FieldError{"name", "the name " + why})
}

// FieldError is the cause of what the checks of this package report. It tells
// those who know where the fields were written which one it is.
type FieldError struct {
	Field string // as in TOML, below the export: "throttle.burst"
	Text  string // what is wrong; names the field
}

// Error gives the text.
func (e *FieldError) Error() string { return e.Text }

// Check checks what can be checked without opening anything. Its errors are of
// kind Invalid, name the export and the field, and have a FieldError as cause.
func (s *Spec) Check() error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	if s.URL == "" {
		return s.invalid("url", "is missing")
	}
	if s.MaxConnections < 0 {
		return s.invalid("max_connections", "is negative")
	}
	if s.Passthrough && s.NoFUSE {
		return s.invalid("passthrough", "needs FUSE, which no_fuse leaves out")
	}
	if field, why := s.Settings.check(); why != "" {
		return s.invalid(field, why)
	}
	if s.Passthrough && s.Throttle != (Throttle{Burst: s.Throttle.Burst}) {
		return s.invalid("passthrough", "lets the kernel read and write by itself: it cannot be throttled")
	}
	if s.Passthrough && len(s.Faults) > 0 {
		return s.invalid("passthrough", "lets the kernel read and write by itself: it cannot have faults")
	}
	return nil
}

func (s *Spec) invalid(field, why string) error {
	return block.Errorf(block.Invalid, "check export", s.Name, -1, "%w", &FieldError{field, field + " " + why})
}

// check gives the first bad field and what is wrong with it.
func (s *Settings) check() (field, why string) {
	if _, ok := modes[s.OnError.Policy]; !ok {
		return "on_error.policy", fmt.Sprintf("%q is none of hold, error and read-only", s.OnError.Policy)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"on_error.limit", int64(s.OnError.Limit)},
		{"throttle.read_iops", s.Throttle.ReadIOPS},
		{"throttle.write_iops", s.Throttle.WriteIOPS},
		{"throttle.read_bytes", int64(s.Throttle.ReadBytes)},
		{"throttle.write_bytes", int64(s.Throttle.WriteBytes)},
		{"throttle.burst", int64(s.Throttle.Burst)},
		{"slow_request", int64(s.SlowRequest)},
	} {
		if f.value < 0 {
			return f.name, "is negative"
		}
	}
	for _, text := range s.Faults {
		if _, err := fault.Parse(text); err != nil {
			return "faults", fmt.Sprintf("has a bad rule %q: %v", text, errors.Unwrap(err))
		}
	}
	return "", ""
}

// modes are the error policies by name.
var modes = map[string]hold.Mode{"": hold.Wait, "hold": hold.Wait, "error": hold.Fail, "read-only": hold.Freeze}

// Hold gives the policy as its filter takes it.
func (e OnError) Hold() hold.Policy {
	return hold.Policy{Mode: modes[e.Policy], Limit: e.Limit.Std(), NoSpace: e.NoSpace}
}

// Limits gives the bounds as their filter takes them.
func (t Throttle) Limits() throttle.Limits {
	return throttle.Limits{
		Read:  throttle.Rate{IOPS: t.ReadIOPS, Bytes: int64(t.ReadBytes), Burst: t.Burst.Std()},
		Write: throttle.Rate{IOPS: t.WriteIOPS, Bytes: int64(t.WriteBytes), Burst: t.Burst.Std()},
	}
}

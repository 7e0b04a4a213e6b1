// Package location takes URLs of storage apart. The registry asks it for the
// scheme; each backend's ParseConfig uses it to read the rest, so that every
// backend refuses a parameter that it does not know, by name and in the same
// words.
//
// The package holds no state.
package location

import (
	"fmt"
	"net/url"
	"sort"
	"strings"

	"sluice/block"
)

// Scheme gives the scheme of a URL in lower case, or "" for a plain path. Only
// letters, digits, "+", "-" and "." in front of "://" make a scheme.
func Scheme(s string) string {
	scheme, _, found := strings.Cut(s, "://")
	if !found || scheme == "" || !isLetter(scheme[0]) {
		return ""
	}
	for _, c := range []byte(scheme) {
		if !isLetter(c) && (c < '0' || c > '9') && c != '+' && c != '-' && c != '.' {
			return ""
		}
	}
	return strings.ToLower(scheme)
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// Parse reads a URL. Its errors are of kind Invalid and name the URL without
// its user part.
func Parse(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		if e, ok := err.(*url.Error); ok {
			err = e.Err
		}
		return nil, block.Errorf(block.Invalid, "parse", Redact(s), -1, "%w", err)
	}
	if u.Fragment != "" {
		return nil, block.Errorf(block.Invalid, "parse", Redact(s), -1, "a URL of storage has no #fragment (write %%23 for #)")
	}
	return u, nil
}

// Redact gives the URL without its user part, for logs and errors, also when it
// cannot be parsed.
func Redact(s string) string {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return s
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
		rest = rest[at+1:]
	}
	return scheme + "://" + rest
}

// Params are the parameters of a URL. A backend asks for each one that it knows
// and then calls Done.
type Params struct {
	object string
	values url.Values
	err    error
}

// ParamsOf gives the parameters of u. The URL is named in errors as object.
func ParamsOf(u *url.URL, object string) *Params {
	values, err := url.ParseQuery(u.RawQuery)
	p := &Params{object: object, values: values}
	if err != nil {
		p.fail("%w", err)
	}
	return p
}

// String gives the parameter's value, or absent where it is not there. It may be
// given once at most.
func (p *Params) String(name, absent string) string {
	v, ok := p.values[name]
	if !ok {
		return absent
	}
	delete(p.values, name)
	if len(v) > 1 {
		p.fail("parameter %q is given %d times", name, len(v))
	}
	return v[0]
}

// Switch is the value of a parameter that is "on", "off" or not there.
type Switch uint8

// The values of a Switch.
const (
	Unset Switch = iota
	On
	Off
)

// Or gives the Switch as a bool, and absent where it is Unset.
func (s Switch) Or(absent bool) bool { return s == On || s == Unset && absent }

// Switch gives the value of a parameter that is "on" or "off".
func (p *Params) Switch(name string) Switch {
	if !p.values.Has(name) {
		return Unset
	}
	switch v := p.String(name, ""); v {
	case "on":
		return On
	case "off":
		return Off
	default:
		p.fail("parameter %s=%s is neither on nor off", name, v)
		return Unset
	}
}

// Value hands the parameter's value to set, where it is there, and reports whether
// it is. set gives false for a value that is wrong; wanted says in the error what a
// right one looks like.
func (p *Params) Value(name, wanted string, set func(value string) bool) (given bool) {
	if !p.values.Has(name) {
		return false
	}
	if v := p.String(name, ""); !set(v) {
		p.fail("parameter %s=%s: want %s", name, v, wanted)
	}
	return true
}

// Done reports the first thing that was wrong, a parameter that nobody asked for
// included.
func (p *Params) Done() error {
	if p.err == nil && len(p.values) > 0 {
		names := make([]string, 0, len(p.values))
		for name := range p.values {
			names = append(names, name)
		}
		sort.Strings(names)
		p.fail("unknown parameter %q", names[0])
	}
	return p.err
}

func (p *Params) fail(format string, args ...any) {
	if p.err == nil {
		p.err = block.Errorf(block.Invalid, "parse", p.object, -1, "%w", fmt.Errorf(format, args...))
	}
}

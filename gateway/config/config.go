package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pelletier/go-toml/v2"

	"sluice/block"
	"sluice/gateway/spec"
)

// Config is what the file says, and the defaults where it says nothing.
type Config struct {
	// API and NBD are addresses as in endpoint.Parse. Nil means that the file
	// leaves them to the daemon, an empty list that there are to be none.
	API []string `toml:"api"`
	NBD []string `toml:"nbd"`

	FUSE    string `toml:"fuse"`    // folder to mount at; empty: no FUSE
	Metrics string `toml:"metrics"` // HOST:PORT; empty: none
	State   string `toml:"state"`   // folder; empty: the daemon's default

	LogLevel    string `toml:"log_level"` // debug, info, warn or error
	AllowFaults bool   `toml:"allow_faults"`

	MaxConnections  int           `toml:"max_connections"`  // NBD clients; 0: the server's default
	BusyPoll        spec.Duration `toml:"busy_poll"`        // 0: never
	ShutdownTimeout spec.Duration `toml:"shutdown_timeout"` // 0: without limit
	SlowRequest     spec.Duration `toml:"slow_request"`     // of exports that have none; 0: none is logged

	TLS         TLS         `toml:"tls"`
	APITLS      Certs       `toml:"api_tls"`
	FUSEOptions FUSEOptions `toml:"fuse_options"`

	Exports []spec.Spec `toml:"export"`
}

// Certs are the files, PEM, that a TLS server needs, and who may come in.
type Certs struct {
	Cert  string   `toml:"cert"`
	Key   string   `toml:"key"`
	CA    string   `toml:"ca"`    // must have signed clients' certificates; empty: they need none
	Allow []string `toml:"allow"` // common names; empty: all that CA signed
}

// TLS is how NBD clients are spoken to.
type TLS struct {
	Mode string `toml:"mode"` // off, optional or required; empty: required with a certificate, else off
	Certs
}

// FUSEOptions are how the files of a FUSE mount look.
type FUSEOptions struct {
	Mode       FileMode `toml:"mode"`
	UID        int      `toml:"uid"`
	GID        int      `toml:"gid"`
	AllowOther bool     `toml:"allow_other"`
}

// FileMode are permission bits, which are written as octal text ("0640"). As a
// number they would be decimal, which nobody means.
type FileMode uint32

// String writes them as UnmarshalText reads them.
func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not a file's mode (0600, 0640, 0660)", text)
	}
	*m = FileMode(n)
	return nil
}

// Default is what holds where the file says nothing.
func Default() *Config {
	return &Config{
		Metrics:         "127.0.0.1:9808",
		LogLevel:        "info",
		BusyPoll:        spec.Duration(20 * time.Microsecond),
		ShutdownTimeout: spec.Duration(30 * time.Second),
		FUSEOptions:     FUSEOptions{Mode: 0o600, UID: os.Getuid(), GID: os.Getgid()},
	}
}

// maxSize is the largest file that is read: some ten thousand exports with all
// their keys.
const maxSize = 4 << 20

// Load reads a file.
func Load(path string) (*Config, error) {
	data, err := content(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// content reads no more of a file than is too much.
func content(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, unreadable(path, err)
	}
	return data, nil
}

// unreadable takes the path, which the error names anyway, out of its cause.
func unreadable(path string, err error) error {
	kind := block.KindOf(err)
	var e *os.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	return &block.Error{Kind: kind, Op: "read configuration", Object: path, Off: -1, Err: err}
}

// Parse reads the text of a file; name is for its errors.
func Parse(name string, data []byte) (*Config, error) {
	if len(data) > maxSize {
		return nil, refuse(name, 0, fmt.Sprintf("it has more than %d bytes", maxSize))
	}
	doc, wrong := read(data)
	if wrong != nil {
		return nil, refuse(name, wrong.line, wrong.text)
	}
	c := Default()
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(c); err != nil {
		line, text := explain(err)
		return nil, refuse(name, line, text)
	}
	for _, p := range c.check(doc.line) {
		return nil, refuse(name, doc.line(p.path), p.text)
	}
	return c, nil
}

// Check checks values and how they go together, as Parse does: for a Config that
// was changed afterwards, by flags. Its errors are of kind Invalid.
func (c *Config) Check() error {
	for _, p := range c.check(func(string) int { return 0 }) {
		return refuse("", 0, p.text)
	}
	return nil
}

// refuse makes the error of a file.
func refuse(name string, line int, text string) error {
	if line > 0 {
		text = fmt.Sprintf("line %d: %s", line, text)
	}
	return block.Errorf(block.Invalid, "check configuration", name, -1, "%s", printable(text))
}

// explain gives line and text of go-toml's errors.
func explain(err error) (line int, text string) {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) && len(missing.Errors) > 0 {
		err = &missing.Errors[0]
	}
	var e *toml.DecodeError
	if !errors.As(err, &e) {
		return 0, strings.TrimPrefix(err.Error(), "toml: ")
	}
	line, _ = e.Position()
	text = strings.TrimPrefix(e.Error(), "toml: ")
	if key := strings.Join(e.Key(), "."); key != "" && !strings.Contains(text, key) {
		text = key + ": " + text
	}
	return line, text
}

// maxText bounds what an error repeats of a file.
const maxText = 300

// printable makes a line for a terminal of what may hold pieces of a file.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

package nbd

import (
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sluice/block"
	proto "sluice/nbd"
)

// MaxConnections bounds the parameter connections.
const MaxConnections = 64

// DefaultReconnect is how long requests wait where the URL does not say.
const DefaultReconnect = 30 * time.Second

// heldReconnect is how long they wait where, besides, somebody above holds them.
const heldReconnect = time.Second

// Config is what a URL says.
type Config struct {
	// URI is the server and the export, without the parameters below.
	URI proto.URI

	Connections int
	Reconnect   proto.ReconnectPolicy
	Timeout     time.Duration
	Bitmaps     []string // names of QEMU's dirty bitmaps
	StableCache bool

	ReconnectAsked bool // Reconnect is what the URL says
}

// ParseConfig reads a URL. The error names a parameter that is not known.
func ParseConfig(s string) (cfg Config, err error) {
	cfg = Config{Connections: 1, Reconnect: proto.ReconnectFor(DefaultReconnect)}
	head, query, _ := strings.Cut(s, "?")
	seen := map[string]bool{}
	defer func() { cfg.ReconnectAsked = seen["reconnect"] }()
	var rest []string
	for _, part := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, raw, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(raw)
		if err != nil || !cfg.own(name) {
			rest = append(rest, part)
			continue
		}
		if seen[name] && name != "bitmap" {
			return Config{}, invalid(s, "parameter %q is given twice", name)
		}
		seen[name] = true
		if !cfg.set(name, value) {
			return Config{}, invalid(s, "parameter %s=%s: want %s", name, value, wanted[name])
		}
	}
	if len(rest) > 0 {
		head += "?" + strings.Join(rest, "&")
	}
	cfg.URI, err = proto.ParseURI(head)
	return cfg, err
}

func invalid(s, format string, args ...any) error {
	object, _, _ := strings.Cut(s, "?") // userinfo is no secret of NBD's, but may be one of the user's
	if scheme, after, ok := strings.Cut(object, "://"); ok {
		if at := strings.LastIndexByte(after, '@'); at >= 0 {
			object = scheme + "://" + after[at+1:]
		}
	}
	return block.Errorf(block.Invalid, "parse", object, -1, format, args...)
}

// wanted says what a parameter of our own looks like.
var wanted = map[string]string{
	"connections":  "a number from 1 to " + strconv.Itoa(MaxConnections),
	"reconnect":    "a duration such as 30s, off, or forever",
	"timeout":      "a duration such as 10s",
	"bitmap":       "a name",
	"stable-cache": "on or off",
}

func (*Config) own(name string) bool { return wanted[name] != "" }

// set takes one parameter of our own; false means that its value is wrong.
func (cfg *Config) set(name, value string) bool {
	switch name {
	case "connections":
		n, err := strconv.Atoi(value)
		cfg.Connections = n
		return err == nil && n >= 1 && n <= MaxConnections
	case "reconnect":
		return cfg.setReconnect(value)
	case "timeout":
		d, err := time.ParseDuration(value)
		cfg.Timeout = d
		return err == nil && d > 0
	case "bitmap":
		cfg.Bitmaps = append(cfg.Bitmaps, value)
		return value != ""
	case "stable-cache":
		cfg.StableCache = value == "on"
		return value == "on" || value == "off"
	}
	return false
}

func (cfg *Config) setReconnect(value string) bool {
	switch value {
	case "off":
		cfg.Reconnect = proto.NoReconnect
	case "forever":
		cfg.Reconnect = proto.ReconnectForever
	default:
		d, err := time.ParseDuration(value)
		cfg.Reconnect = proto.ReconnectFor(d)
		return err == nil && d > 0
	}
	return true
}

// client is the configuration for the client.
func (cfg *Config) client(readOnly bool) proto.ClientConfig {
	contexts := []string{proto.ContextAllocation, proto.ContextDepth}
	for _, name := range cfg.Bitmaps {
		contexts = append(contexts, proto.ContextDirty+name)
	}
	return proto.ClientConfig{
		Connections:  cfg.Connections,
		MetaContexts: contexts,
		ReadOnly:     readOnly,
		Reconnect:    cfg.Reconnect,
		StableCache:  cfg.StableCache,
		DialTimeout:  cfg.Timeout,
		Logger:       slog.Default(),
	}
}

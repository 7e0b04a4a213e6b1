package nfs

import (
	"context"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"sluice/backends/location"
	"sluice/backends/nfs/rpc"
	"sluice/block"
	"sluice/block/size"
)

// Bounds and defaults of the parameters.
const (
	MaxConnections   = 16
	DefaultReconnect = 30 * time.Second
	DefaultTimeout   = 10 * time.Second
	DefaultSilence   = 10 * time.Second
	DefaultKeep      = 64 << 20
	MaxIO            = 1 << 20 // of rsize and wsize, and what they are by default
	minIO            = 4096
	minKeep          = 1 << 20
	mostKeep         = 64 << 30
)

// heldReconnect is how long requests wait where somebody above holds them and the
// URL says nothing.
const heldReconnect = time.Second

// sessionless is the version that is refused.
const sessionless = "4.0"

// forever as Config.Reconnect: requests wait as long as it takes.
const forever = time.Duration(-1)

// Config is what a URL says.
type Config struct {
	Host string
	Port int    // 0: the usual one; for NFSv3 the portmapper's
	Path string // on the server, clean, from "/"

	Version string // "": the best; "4": 4.2 or 4.1; else "4.2", "4.1" or "3"
	Cred    rpc.Cred

	Connections int           // nconnect
	Reconnect   time.Duration // how long requests wait while the server is away; 0: not at all; < 0: for ever
	Timeout     time.Duration // of an attempt to connect
	Silence     time.Duration // how long a server that owes replies may say nothing

	MountPort   int // of NFSv3's mount protocol; 0: the portmapper's
	PortmapPort int // 0: 111

	ReadSize, WriteSize int   // longest single READ and WRITE, in bytes
	Keep                int64 // bytes of a Device that are kept until they are committed

	Share location.Switch // Unset: as OpenOptions.Share says

	ReconnectAsked bool // Reconnect is what the URL says
}

// ParseConfig reads a URL. The error names a parameter that is not known.
func ParseConfig(s string) (Config, error) {
	u, err := location.Parse(s)
	if err != nil {
		return Config{}, err
	}
	cfg := Config{
		Cred: rpc.ProcessCred(), Connections: 1, Reconnect: DefaultReconnect, Timeout: DefaultTimeout, Silence: DefaultSilence,
		ReadSize: MaxIO, WriteSize: MaxIO, Keep: DefaultKeep,
	}
	object, _, _ := strings.Cut(location.Redact(s), "?")
	if err := cfg.place(u, object); err != nil {
		return Config{}, err
	}
	p := location.ParamsOf(u, object)
	cfg.parameters(p)
	if err := p.Done(); err != nil {
		return Config{}, err
	}
	if cfg.Version == sessionless {
		return Config{}, block.Errorf(block.Unsupported, "parse", object, -1,
			"NFS 4.0 has no sessions, so that a lost reply cannot be told from a lost request: use 4.1, 4.2 or 3")
	}
	return cfg, nil
}

// place reads host, port and path.
func (cfg *Config) place(u *url.URL, object string) error {
	bad := func(format string, args ...any) error {
		return block.Errorf(block.Invalid, "parse", object, -1, format, args...)
	}
	if u.User != nil {
		return bad("an NFS URL names no user: see the parameters uid and gid")
	}
	if cfg.Host = u.Hostname(); cfg.Host == "" {
		return bad("an NFS URL names a host: nfs://HOST/PATH")
	}
	if port := u.Port(); port != "" && !number(&cfg.Port, 1, 65535)(port) {
		return bad("port %s is not a number from 1 to 65535", port)
	}
	if strings.IndexByte(u.Path, 0) >= 0 {
		return bad("the path has a NUL in it")
	}
	for name := range strings.SplitSeq(u.Path, "/") {
		if name == ".." { // where a/b is a symbolic link, a/b/.. is not a
			return bad(`the path has ".." in it`)
		}
	}
	cfg.Path = path.Clean("/" + u.Path)
	return nil
}

func (cfg *Config) parameters(p *location.Params) {
	p.Value("vers", "4.2, 4.1, 4 or 3", func(v string) bool {
		cfg.Version = v
		return v == "4" || v == sessionless || known(v)
	})
	p.Value("nconnect", "a number from 1 to "+strconv.Itoa(MaxConnections), number(&cfg.Connections, 1, MaxConnections))
	user := func(id *uint32) func(string) bool {
		return func(v string) bool {
			n, err := strconv.ParseUint(v, 10, 32)
			*id, cfg.Cred.Groups = uint32(n), nil // the process's groups are not those of another user
			return err == nil
		}
	}
	p.Value("uid", "a number", user(&cfg.Cred.UID))
	p.Value("gid", "a number", user(&cfg.Cred.GID))
	cfg.ReconnectAsked = p.Value("reconnect", "a duration such as 30s, off, or forever", cfg.setReconnect)
	p.Value("timeout", "a duration such as 10s", duration(&cfg.Timeout))
	p.Value("silence", "a duration such as 10s", duration(&cfg.Silence))
	p.Value("mountport", "a number from 1 to 65535", number(&cfg.MountPort, 1, 65535))
	p.Value("portmap", "the number of the portmapper's port", number(&cfg.PortmapPort, 1, 65535))
	transfer := "a size from 4K to " + size.Format(MaxIO)
	p.Value("rsize", transfer, transferSize(&cfg.ReadSize))
	p.Value("wsize", transfer, transferSize(&cfg.WriteSize))
	p.Value("keep", "a size from 1M on", func(v string) (ok bool) {
		cfg.Keep, ok = between(v, minKeep, mostKeep)
		return ok
	})
	cfg.Share = p.Switch("share")
}

func (cfg *Config) setReconnect(v string) bool {
	switch v {
	case "off":
		cfg.Reconnect = 0
		return true
	case "forever":
		cfg.Reconnect = forever
		return true
	}
	return duration(&cfg.Reconnect)(v)
}

func number(n *int, least, most int) func(string) bool {
	return func(v string) (ok bool) {
		var err error
		*n, err = strconv.Atoi(v)
		return err == nil && *n >= least && *n <= most
	}
}

func duration(d *time.Duration) func(string) bool {
	return func(v string) bool {
		var err error
		*d, err = time.ParseDuration(v)
		return err == nil && *d > 0
	}
}

func transferSize(n *int) func(string) bool {
	return func(v string) bool {
		bytes, ok := between(v, minIO, MaxIO)
		*n = int(bytes)
		return ok
	}
}

func between(v string, least, most int64) (int64, bool) {
	n, err := size.Parse(v)
	return n, err == nil && n >= least && n <= most
}

// url names a path on the server, for errors.
func (cfg *Config) url(path string) string { return "nfs://" + cfg.address() + path }

// address is the host, with the port where the URL has one.
func (cfg *Config) address() string {
	host := cfg.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if cfg.Port != 0 {
		host += ":" + strconv.Itoa(cfg.Port)
	}
	return host
}

// at is the configuration for another path.
func (cfg Config) at(path string) Config {
	cfg.Path = path
	return cfg
}

// Locate gives the folder of the image at the URL as a Store, and the image's name
// in it. A symbolic link at the end of the path is refused once it is there, since
// where it leads to is the server's matter: name that.
func Locate(ctx context.Context, url string) (block.Store, string, error) {
	store, name, err := LocateEntry(ctx, url)
	if err != nil {
		return nil, "", err
	}
	links, _ := store.(block.LinkTeller)
	if e, err := links.Lstat(ctx, name); err == nil && e.Kind == kindSymlink {
		_ = store.Close()
		return nil, "", block.Errorf(block.Invalid, "open", location.Redact(url), -1, "is a symbolic link: name the image itself")
	}
	return store, name, nil
}

// LocateEntry is Locate for those who want the name itself, to remove it or to give
// it away: what it is does not matter.
func LocateEntry(ctx context.Context, url string) (block.Store, string, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, "", err
	}
	where, _, _ := strings.Cut(url, "?")
	if cfg.Path == "/" || strings.HasSuffix(where, "/") { // that would name what a link leads to
		return nil, "", block.Errorf(block.Invalid, "open", cfg.url(cfg.Path), -1, "not the name of an image")
	}
	dir, name := path.Split(cfg.Path)
	s, err := openStore(ctx, &clients, cfg.at(path.Clean(dir)))
	if err != nil {
		return nil, "", err
	}
	return s, name, nil
}

// OpenStore opens the folder that the URL names.
func OpenStore(ctx context.Context, url string) (block.Store, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	s, err := openStore(ctx, &clients, cfg)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Open opens the image that the URL names. Direct means nothing here: this host
// caches nothing of an NFS file.
func Open(ctx context.Context, url string, opts block.OpenOptions) (block.Device, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	d, err := open(ctx, &clients, cfg, opts)
	if err != nil {
		return nil, err
	}
	return d, nil
}

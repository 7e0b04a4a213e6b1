package v3

import (
	"context"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/rpc"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// root is an export that was mounted, or a folder below one.
type root struct {
	dir string
	fh  handle
}

// below reports whether a path is a folder or in it.
func below(p, dir string) bool {
	return dir == "/" || p == dir || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

// root gives the export that a path is in, and mounts it where that was not done yet.
func (c *Client) root(ctx context.Context, p string) (*root, error) {
	if r := c.mounted(p); r != nil {
		return r, nil
	}
	// One at a time. This needs none of our connections: whoever holds it goes on also
	// while they are being revived.
	select {
	case c.mounting <- struct{}{}:
	case <-c.closing:
		return nil, block.Closed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.mounting }()
	if r := c.mounted(p); r != nil {
		return r, nil
	}
	return c.mount(ctx, p)
}

// mounted is the export of a path, if it is mounted and no other one is nearer.
func (c *Client) mounted(p string) *root {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nearest *root
	for _, r := range c.roots {
		if below(p, r.dir) && (nearest == nil || len(r.dir) > len(nearest.dir)) {
			nearest = r
		}
	}
	if nearest == nil {
		return nil
	}
	for _, dir := range c.exports {
		if below(p, dir) && len(dir) > len(nearest.dir) {
			return nil
		}
	}
	return nearest
}

// forget takes a root away that is stale.
func (c *Client) forget(r *root) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roots = slices.DeleteFunc(c.roots, func(other *root) bool { return other == r })
}

// mount finds the export of a path: the longest one in the server's list, else whatever
// folder on the way up can be mounted.
func (c *Client) mount(ctx context.Context, p string) (*root, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	s, err := c.mountService(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	list, err := s.exports(ctx)
	if err == nil {
		c.mu.Lock()
		c.exports = list
		c.mu.Unlock()
	} else if ctx.Err() != nil {
		return nil, err
	}
	var first error
	for _, dir := range candidates(p, list) {
		fh, err := s.mnt(ctx, dir)
		if err == nil {
			return c.addRoot(dir, fh), nil
		}
		if statusOf(err) == nfsstat.OK {
			return nil, err // no answer that the next folder could change
		}
		if first == nil {
			first = err
		}
	}
	return nil, &fault{kind: block.KindOf(first), text: "no export of the server can be mounted for " + p, cause: first}
}

func (c *Client) addRoot(dir string, fh handle) *root {
	r := &root{dir: dir, fh: fh}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roots = append(c.roots, r)
	return r
}

// candidates are the folders to be mounted for a path, best first.
func candidates(p string, exports []string) []string {
	var list []string
	for _, dir := range exports {
		if below(p, dir) {
			list = append(list, dir)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return len(b) - len(a) })
	for dir := p; ; dir = path.Dir(dir) {
		if !slices.Contains(list, dir) {
			list = append(list, dir)
		}
		if dir == "/" {
			return list
		}
	}
}

// service is a connection to one of the programs that are asked now and then. No call is
// sent twice over it.
type service struct {
	t    *rpc.Transport
	call *rpc.Call
}

// maxService is the longest reply of one: a list of exports.
const maxService = 1 << 20

func (c *Client) dialService(ctx context.Context, port int, program, version uint32) (*service, error) {
	address := net.JoinHostPort(c.cfg.Host, strconv.Itoa(port))
	t, err := rpc.Open(ctx, rpc.Config{
		Dial:    func(ctx context.Context) (net.Conn, error) { return c.cfg.Dial(ctx, address) },
		Program: program, Version: version, Cred: &c.cfg.Cred,
		Silence: c.cfg.Silence, MaxReply: maxService, Object: address,
	})
	if err != nil {
		return nil, connectError(address, err)
	}
	s := &service{t: t, call: t.NewCall()}
	s.call.Drained = func() {}
	return s, nil
}

// connectError says what could not be connected to.
func connectError(address string, err error) error {
	kind := block.KindOf(err)
	if kind == block.IO {
		kind = block.Transient
	}
	return &fault{kind: kind, text: "connect to " + address, cause: err}
}

func (s *service) close() { _ = s.t.Close() }

// ask makes a call. After an error the service can only be closed.
func (s *service) ask(ctx context.Context, name string, proc uint32, args []byte) (xdr.Reader, error) {
	s.call.Head = append(s.t.Start(s.call.Head, proc), args...)
	_, err := s.t.Do(ctx, s.call)
	if err != nil {
		return xdr.Reader{}, callError(name, err)
	}
	return xdr.NewReader(s.call.Reply), nil
}

// mountService connects to the program that knows the exports.
func (c *Client) mountService(ctx context.Context) (*service, error) {
	port := c.cfg.MountPort
	if port == 0 {
		var err error
		if port, err = c.portOf(ctx, mountProgram, mountVersion); err != nil {
			return nil, err
		}
	}
	return c.dialService(ctx, port, mountProgram, mountVersion)
}

// portOf asks the port mapper (RFC 1833, section 3).
func (c *Client) portOf(ctx context.Context, program, version uint32) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	s, err := c.dialService(ctx, c.cfg.PortmapPort, portmapProgram, portmapVersion)
	if err != nil {
		return 0, &fault{kind: block.KindOf(err), text: "port mapper", cause: err}
	}
	defer s.close()
	var args []byte
	for _, v := range []uint32{program, version, protocolTCP, 0} {
		args = xdr.AppendUint32(args, v)
	}
	r, err := s.ask(ctx, "GETPORT", portmapGetPort, args)
	if err != nil {
		return 0, err
	}
	port := r.Uint32()
	switch {
	case r.Err() != nil || port > 65535:
		return 0, breach("GETPORT", "no port in the reply")
	case port == 0:
		return 0, faultf(block.Unsupported, "the port mapper knows no program %d version %d over TCP", program, version)
	}
	return int(port), nil
}

// exports lists what can be mounted.
func (s *service) exports(ctx context.Context) (list []string, err error) {
	r, err := s.ask(ctx, "EXPORT", mountExport, nil)
	if err != nil {
		return nil, err
	}
	return readExports(&r)
}

func readExports(r *xdr.Reader) (list []string, err error) {
	for r.More() {
		list = append(list, clean(r.String(maxPath)))
		for r.More() {
			r.Opaque(maxName) // to whom
		}
	}
	if r.Err() != nil {
		return nil, breach("EXPORT", "%v", r.Err())
	}
	return list, nil
}

// mnt mounts a folder.
func (s *service) mnt(ctx context.Context, dir string) (handle, error) {
	r, err := s.ask(ctx, "MNT", mountMnt, xdr.AppendString(nil, dir))
	if err != nil {
		return nil, err
	}
	return readMnt(&r)
}

const (
	authNone   = 0
	authSys    = 1
	maxFlavors = 64
)

func readMnt(r *xdr.Reader) (handle, error) {
	status := nfsstat.Status(r.Uint32()) // mountstat3 has the same numbers
	if r.Err() == nil && status != nfsstat.OK {
		return nil, &nfsstat.Error{Op: "MNT", Status: status}
	}
	fh := readHandle(r)
	n := r.Uint32()
	if n > maxFlavors {
		r.Fail()
	}
	usable := n == 0
	for range n {
		flavor := r.Uint32()
		usable = usable || flavor == authSys || flavor == authNone
		if r.Err() != nil {
			break
		}
	}
	if r.Err() != nil {
		return nil, breach("MNT", "%v", r.Err())
	}
	if !usable {
		// With the status that it amounts to: it is an answer, not a failure to get one.
		return nil, &fault{
			kind: block.Permission, text: "the export is only for clients that authenticate (Kerberos)",
			cause: &nfsstat.Error{Op: "MNT", Status: nfsstat.Access},
		}
	}
	return fh, nil
}

// unmount tells the server that its exports are not used any more. It keeps a list for
// its administrator's eyes.
func (c *Client) unmount(ctx context.Context) {
	c.mu.Lock()
	roots := slices.Clone(c.roots)
	c.mu.Unlock()
	if len(roots) == 0 {
		return
	}
	s, err := c.mountService(ctx)
	if err != nil {
		return
	}
	defer s.close()
	for _, r := range roots {
		if _, err := s.ask(ctx, "UMNT", mountUmnt, xdr.AppendString(nil, r.dir)); err != nil {
			return
		}
	}
}

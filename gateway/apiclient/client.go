package apiclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"sluice/block"
	"sluice/gateway/endpoint"
	"sluice/gateway/wire"
)

const (
	dialTimeout = 10 * time.Second
	maxAnswer   = 256 << 20 // bytes; a daemon with 100 000 exports stays below it
	maxProblem  = 64 << 10
)

// Config says where the daemon is.
type Config struct {
	// Address is unix:PATH or tcp:HOST:PORT.
	Address string
	// Cert and Key are PEM files with the client's certificate and its key, CA one
	// with the authority that signed the daemon's. All are needed for tcp, and none
	// is for unix.
	Cert, Key, CA string
}

// Client asks a daemon.
type Client struct {
	address endpoint.Address
	base    string // of URLs
	http    *http.Client
}

// New makes a Client. It does not connect yet.
func New(cfg Config) (*Client, error) {
	a, err := endpoint.Parse(cfg.Address)
	if err != nil {
		var e *block.Error
		if errors.As(err, &e) {
			e.Op = "parse API address"
		}
		return nil, err
	}
	given := cfg.Cert != "" || cfg.Key != "" || cfg.CA != ""
	transport := &http.Transport{TLSHandshakeTimeout: dialTimeout, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}
	dialer := &net.Dialer{Timeout: dialTimeout}
	c := &Client{address: a, http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}
	if a.Network == "unix" {
		if given {
			return nil, block.Errorf(block.Invalid, "parse API address", cfg.Address, -1, "a unix socket takes no certificates")
		}
		c.base = "http://sluice"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", a.Path)
		}
		return c, nil
	}
	if transport.TLSClientConfig, err = loadTLS(cfg); err != nil {
		return nil, err
	}
	transport.DialContext = dialer.DialContext
	c.base = "https://" + net.JoinHostPort(a.Host, a.Port)
	return c, nil
}

// noRedirect: the API has none.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// loadTLS reads the files for TCP.
func loadTLS(cfg Config) (*tls.Config, error) {
	if cfg.Cert == "" || cfg.Key == "" || cfg.CA == "" {
		return nil, block.Errorf(block.Invalid, "parse API address", cfg.Address, -1,
			"over TCP the daemon wants a certificate: give one, its key, and the authority of the daemon's (--api-cert, --api-key, --api-ca)")
	}
	pair, err := endpoint.KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, err
	}
	roots, err := endpoint.Authority(cfg.CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots}, nil
}

// Close hangs up. Streams of events end with their contexts, not with it.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Address is where the daemon is.
func (c *Client) Address() string { return c.address.String() }

// call sends a request and reads the answer into out, where it is not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	res, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if out == nil {
		return nil
	}
	limited := &io.LimitedReader{R: res.Body, N: maxAnswer}
	if err := json.NewDecoder(limited).Decode(out); err != nil {
		return c.strange(ctx, err)
	}
	return nil
}

// strange tells of an answer that is not understood, or that broke off.
func (c *Client) strange(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return block.Wrap(err, "read the answer of the daemon at", c.Address(), -1)
}

// send sends a request, whose body is JSON where there is one. The answer is of a
// success, and the caller closes it.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, block.Errorf(block.Invalid, "write request", "", -1, "%w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, block.Errorf(block.Invalid, "write request", "", -1, "%w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	return nil, c.failure(res)
}

// failure reads what went wrong.
func (c *Client) failure(res *http.Response) error {
	var p wire.Problem
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	err := json.NewDecoder(io.LimitReader(res.Body, maxProblem)).Decode(&p)
	if kind != wire.ProblemType || err != nil || p.Detail == "" {
		return block.Errorf(block.IO, "ask", c.Address(), -1, "something that is no daemon of Sluice answers there (HTTP %d)", res.StatusCode)
	}
	return p.Err()
}

// unreached explains why no answer came, and what to do.
func (c *Client) unreached(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, of which the address is told anyway
	}
	fail := func(kind block.Kind, format string, args ...any) error {
		return block.Errorf(kind, "reach the daemon at", c.Address(), -1, format, args...)
	}
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fail(block.Canceled, "%w", err)
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTSOCK):
		return fail(block.Transient, "it is not running there; start it (sluice daemon), or say where it is (--api ADDRESS)")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fail(block.Permission, "you may not use this socket; run as its owner or a member of its group")
	case errors.As(err, &unknown), errors.As(err, &hostname):
		return fail(block.Permission, "its certificate is not trusted: %w", err)
	case errors.As(err, &op) && op.Op == "remote error": // which is what TLS calls the other side's
		return fail(block.Permission, "it refuses the certificate: %w", op.Err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fail(block.Transient, "it hung up before it answered; what was asked may have been done")
	}
	return fail(kindOfCause(err), "%w", cause(err))
}

// kindOfCause takes for passing what a network did.
func kindOfCause(err error) block.Kind {
	var op *net.OpError
	if kind := block.KindOf(err); kind != block.IO || !errors.As(err, &op) {
		return kind
	}
	return block.Transient
}

// cause is the innermost error of a connection's, without the address.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}

package v3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/rpc"
	"sluice/block"
)

// fault is an error with a kind that its text does not tell.
type fault struct {
	kind  block.Kind
	text  string
	cause error // may be nil
}

// Error is the text, with the cause.
func (e *fault) Error() string {
	if e.cause == nil {
		return e.text
	}
	return e.text + ": " + e.cause.Error()
}

// Unwrap gives the kind before the cause, which may have one of its own.
func (e *fault) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

func faultf(kind block.Kind, format string, args ...any) error {
	return &fault{kind: kind, text: fmt.Sprintf(format, args...)}
}

// breach is a reply that breaks the protocol's rules.
func breach(proc, format string, args ...any) error {
	return faultf(block.IO, "%s: the server breaks the NFS protocol: %s", proc, fmt.Sprintf(format, args...))
}

// callError is what a call ended with that has no results.
func callError(proc string, err error) error {
	var refused *rpc.ReplyError
	var broken *rpc.ProtocolError
	switch {
	case errors.As(err, &refused):
		return &fault{kind: refusalKind(refused), text: proc, cause: err}
	case errors.As(err, &broken):
		return &fault{kind: block.IO, text: proc, cause: err}
	}
	return err
}

func refusalKind(e *rpc.ReplyError) block.Kind {
	const noProcedure = 3 // accept_stat PROC_UNAVAIL
	switch {
	case e.Mismatch(), !e.Denied && e.Code == noProcedure:
		return block.Unsupported
	case e.Auth:
		return block.Permission
	}
	return block.IO
}

// statusOf is the status in an error of the server's; OK where there is none.
func statusOf(err error) nfsstat.Status {
	var e *nfsstat.Error
	if errors.As(err, &e) {
		return e.Status
	}
	return nfsstat.OK
}

// isMissing reports whether the server does not have a procedure.
func isMissing(err error) bool {
	var refused *rpc.ReplyError
	return statusOf(err) == nfsstat.NotSupp || errors.As(err, &refused) && refusalKind(refused) == block.Unsupported
}

// isStale reports whether the server does not know a handle any more.
func isStale(err error) bool {
	s := statusOf(err)
	return s == nfsstat.Stale || s == nfsstat.BadHandle
}

// patience is how long a call has been put off by the server.
type patience struct {
	limit   time.Duration // negative: none
	closing <-chan struct{}
	began   time.Time
	delay   time.Duration
	moved   bool // the file was looked up again
}

const (
	firstPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
)

// wait pauses, each time longer, after an answer that says "later"; it gives that
// answer back where the time is over, or why it did not wait.
func (p *patience) wait(ctx context.Context, answer error) error {
	if p.began.IsZero() {
		p.began = time.Now()
	}
	p.delay = min(max(2*p.delay, firstPause), mostPause)
	pause := p.delay
	if p.limit >= 0 {
		left := p.limit - time.Since(p.began)
		if left <= 0 {
			return answer
		}
		pause = min(pause, left)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.closing:
		return block.Closed
	case <-ctx.Done():
		return ctx.Err()
	}
}

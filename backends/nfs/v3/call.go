package v3

import (
	"bytes"
	"context"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/xdr"
)

// asker makes calls that are not of the data path: the Client, or a connection that is
// being revived.
type asker interface {
	// ask makes a call, as often as the server puts it off. An error is the server's
	// status or says why there is none; the result tells of the repetitions then too.
	ask(ctx context.Context, proc uint32, args []byte) (result, error)
}

// result is what follows the status in the results of a procedure.
type result struct {
	xdr.Reader
	proc   uint32
	resent bool // the call may have been carried out more than once
}

// check is the error of a decoder that has read it all.
func (r *result) check() error {
	if r.Err() != nil {
		return breach(nameOf(r.proc), "%v", r.Err())
	}
	return nil
}

// open takes the status off results.
func open(proc uint32, results []byte) (result, error) {
	r := result{Reader: xdr.NewReader(results), proc: proc}
	status := nfsstat.Status(r.Uint32())
	if err := r.check(); err != nil {
		return r, err
	}
	if status != nfsstat.OK {
		return r, &nfsstat.Error{Op: nameOf(proc), Status: status}
	}
	return r, nil
}

// ask implements asker.
func (c *Client) ask(ctx context.Context, proc uint32, args []byte) (result, error) {
	wait := patience{limit: c.cfg.Patience, closing: c.closing}
	return persist(ctx, &wait, func() (result, error) { return c.once(ctx, nil, proc, args) })
}

// persist repeats a call that the server puts off.
func persist(ctx context.Context, wait *patience, once func() (result, error)) (result, error) {
	for resent := false; ; {
		r, err := once()
		resent = resent || r.resent
		r.resent = resent
		if statusOf(err) != nfsstat.Delay {
			return r, err
		}
		if err = wait.wait(ctx, err); err != nil {
			return r, err
		}
	}
}

// keptReply is how much memory a slot keeps for the next reply: those of the data path
// are short, and a folder's are not.
const keptReply = 4 << 10

// once makes a call. left is as in slots.take.
func (c *Client) once(ctx context.Context, left <-chan struct{}, proc uint32, args []byte) (result, error) {
	sl, err := c.slots.take(ctx, left)
	if err != nil {
		return result{proc: proc}, err
	}
	call := sl.call
	call.Head = append(sl.t.Start(call.Head, proc), args...)
	call.Data, call.Into, call.Find, call.Changes = nil, nil, nil, procedures[proc].changes
	if err := sl.do(ctx, proc); err != nil {
		return result{proc: proc}, err
	}
	r, err := open(proc, bytes.Clone(call.Reply))
	r.resent = call.Resent
	if cap(call.Reply) > keptReply {
		call.Reply = nil
	}
	sl.release()
	return r, err
}

package v4

import (
	"context"
	"errors"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/rpc"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// Operations on client ids and sessions (RFC 8881, sections 18.34 to 18.37, 18.50, 18.51).

const maxOwner = 1024 // NFS4_OPAQUE_LIMIT

// exchanged is the result of EXCHANGE_ID.
type exchanged struct {
	clientID uint64
	seq      uint32
	flags    uint32
}

func exchangeID(o *owner, got *exchanged) *chain {
	return &chain{steps: []step{{
		op: opExchangeID,
		args: func(b []byte) []byte {
			b = append(b, o.verifier[:]...)
			b = xdr.AppendString(b, o.name)
			b = xdr.AppendUint32(b, exchangeUseNonPNFS)
			b = xdr.AppendUint32(b, 0)    // state protection: SP4_NONE
			return xdr.AppendUint32(b, 0) // nothing about the implementation
		},
		result: func(r *results) {
			*got = exchanged{clientID: r.Uint64(), seq: r.Uint32(), flags: r.Uint32()}
			if r.Uint32() != 0 { // asked for SP4_NONE
				r.Fail()
			}
			r.Uint64()
			r.Opaque(maxOwner)
			r.Opaque(maxOwner)
		},
	}}}
}

// callbackProgram is what the server calls us by: a transient number.
const callbackProgram = 0x40000000

func createSession(clientID uint64, seq uint32, maxIO int, got *session) *chain {
	return &chain{steps: []step{{
		op: opCreateSession,
		args: func(b []byte) []byte {
			b = xdr.AppendUint64(b, clientID)
			b = xdr.AppendUint32(b, seq)
			b = xdr.AppendUint32(b, sessionBackChannel)
			b = backward.append(forward(maxIO).append(b))
			b = xdr.AppendUint32(b, callbackProgram)
			b = xdr.AppendUint32(b, 1)
			return xdr.AppendUint32(b, 0) // it may call with AUTH_NONE
		},
		result: func(r *results) {
			copy(got.id[:], r.Fixed(len(got.id)))
			r.Uint32() // our sequence comes back
			r.Uint32()
			got.fore = readChannel(r)
			readChannel(r)
		},
	}}}
}

func destroySession(id [16]byte) *chain {
	return &chain{steps: []step{{op: opDestroySession, args: func(b []byte) []byte { return append(b, id[:]...) }}}}
}

func destroyClientID(id uint64) *chain {
	return &chain{steps: []step{{op: opDestroyClientID, args: func(b []byte) []byte { return xdr.AppendUint64(b, id) }}}}
}

func reclaimComplete() *chain {
	return &chain{steps: []step{{op: opReclaimComplete, args: func(b []byte) []byte { return xdr.AppendBool(b, false) }}}, keep: true}
}

// plain makes a compound without SEQUENCE. The call is its caller's again only where
// the context has not ended.
func (c *Client) plain(ctx context.Context, call *rpc.Call, op *chain) error {
	t := c.transports[0]
	call.Head = op.encode(appendCompound(t.Start(call.Head, procCompound), c.minor, len(op.steps)))
	call.Drained = func() {}
	if _, err := t.Do(ctx, call); err != nil {
		return err
	}
	var r results
	if err := r.begin(call.Reply, 0); err != nil {
		return err
	}
	return op.decode(&r)
}

// settle finds the minor version out and gets the first client id.
func (c *Client) settle(ctx context.Context) error {
	for {
		err := c.identify(ctx)
		if err == nil {
			return nil
		}
		if !lacksVersion(err) {
			return c.named(err)
		}
		if c.minor == 1 || c.cfg.Only {
			return block.Errorf(block.Unsupported, "connect to", c.server, -1, "the server does not speak NFSv4.%d: %w", c.minor, err)
		}
		c.minor--
	}
}

// lacksVersion reports whether the server said that it does not speak the version.
func lacksVersion(err error) bool {
	var refused *rpc.ReplyError
	return errors.As(err, &refused) && refused.Mismatch() || statusOf(err) == nfsstat.MinorVersMismatch
}

func (c *Client) named(err error) error { return block.Wrap(err, "connect to", c.server, -1) }

// identify gets a client id.
func (c *Client) identify(ctx context.Context) error {
	var pause patience
	for {
		var got exchanged
		err := c.plain(ctx, c.bare, exchangeID(c.owner, &got))
		switch statusOf(err) {
		case nfsstat.Delay:
			if pause.wait(ctx, c.cfg.Patience) {
				continue
			}
		case nfsstat.ClidInUse:
			// Another user of this host has it.
			c.owner.another()
			if pause.wait(ctx, c.cfg.Patience) {
				continue
			}
		}
		if err != nil {
			return err
		}
		c.clientID, c.createSeq = got.clientID, got.seq
		return nil
	}
}

// createSession makes a session for the client id.
func (c *Client) createSession(ctx context.Context) (*session, error) {
	var pause patience
	for {
		s := &session{}
		err := c.plain(ctx, c.bare, createSession(c.clientID, c.createSeq, c.cfg.MaxIO, s))
		if statusOf(err) == nfsstat.Delay && pause.wait(ctx, c.cfg.Patience) {
			continue
		}
		if err != nil {
			return nil, c.named(err)
		}
		c.createSeq++
		if s.fore.maxSlots == 0 || s.fore.maxRequest < smallest || s.fore.maxResponse < smallest || s.fore.maxOps < 4 {
			return nil, c.named(breach("a session of %d slots, %d operations, requests of %d and responses of %d bytes",
				s.fore.maxSlots, s.fore.maxOps, s.fore.maxRequest, s.fore.maxResponse))
		}
		s.fore.maxSlots = min(s.fore.maxSlots, maxSlots)
		s.target.Store(s.fore.maxSlots - 1)
		c.number++
		s.number = c.number
		return s, nil
	}
}

package v4

import (
	"fmt"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/rpc"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// operation is what follows SEQUENCE in a compound, and is made ready once however
// often it is sent.
type operation interface {
	// encode appends the arguments, each operation with its number, and all but the
	// payload. It is asked anew for each attempt, since stateids change.
	encode(b []byte) []byte
	// decode takes the results.
	decode(r *results) error
	// traits says what sort of call it is.
	traits() traits
}

// traits of an operation.
type traits struct {
	ops     int        // operations after SEQUENCE
	cache   bool       // the server is to keep the reply, since it must not be done twice
	changes bool       // it changes something: see rpc.Call
	data    []byte     // payload of the call
	into    []byte     // where the payload of the reply goes
	find    rpc.Finder // and where it is
}

// results are those of a compound, read in order.
type results struct {
	xdr.Reader
	status nfsstat.Status // of the compound: that of the last operation
	left   uint32         // operations that have a result
	moved  int            // bytes that were put where the operation wanted its payload
}

// begin reads the head of a compound's reply, of which moved bytes were put elsewhere.
func (r *results) begin(reply []byte, moved int) error {
	*r = results{Reader: xdr.NewReader(reply), moved: moved}
	r.status = nfsstat.Status(r.Uint32())
	r.Opaque(maxName) // the tag comes back
	r.left = r.Uint32()
	return r.check("COMPOUND")
}

// next takes the number and the status of the next operation's result: an error where
// that failed, is missing, or is another's.
func (r *results) next(op uint32) error {
	if r.left == 0 {
		if r.status != nfsstat.OK {
			return &nfsstat.Error{Op: opNames[op], Status: r.status}
		}
		return breach("no result for %s", opNames[op])
	}
	r.left--
	got, status := r.Uint32(), nfsstat.Status(r.Uint32())
	switch {
	case r.Err() != nil:
		return breach("a result of %s that is too short", opNames[op])
	case status == nfsstat.OpIllegal, status == nfsstat.NotSupp && got != op:
		return &nfsstat.Error{Op: opNames[op], Status: nfsstat.NotSupp}
	case got != op:
		return breach("a result of operation %d where %s was to be", got, opNames[op])
	case status != nfsstat.OK:
		return &nfsstat.Error{Op: opNames[op], Status: status}
	}
	return nil
}

// check says what was wrong with the results of an operation, if anything was.
func (r *results) check(op string) error {
	if r.Err() != nil {
		return breach("a malformed result of %s", op)
	}
	return nil
}

// breach is a reply that breaks the protocol's rules.
func breach(format string, args ...any) error {
	return fmt.Errorf("the server breaks the NFS protocol: %s%w", fmt.Sprintf(format, args...), quiet{block.IO})
}

// quiet is a kind that says nothing.
type quiet struct{ kind block.Kind }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.kind }

// step is one operation of a chain.
type step struct {
	op     uint32
	args   func(b []byte) []byte // nil: none
	result func(r *results)      // nil: none
}

// chain is an operation made of steps, for what is not on the data path.
type chain struct {
	steps []step
	// keep has the server keep the reply: for what must not be done twice.
	keep    bool
	changes bool
	// unsure: an earlier attempt may have been carried out.
	unsure bool
}

func (c *chain) encode(b []byte) []byte {
	for _, s := range c.steps {
		b = xdr.AppendUint32(b, s.op)
		if s.args != nil {
			b = s.args(b)
		}
	}
	return b
}

func (c *chain) decode(r *results) error {
	for _, s := range c.steps {
		if err := r.next(s.op); err != nil {
			return err
		}
		if s.result != nil {
			s.result(r)
		}
		if err := r.check(opNames[s.op]); err != nil {
			return err
		}
	}
	return nil
}

func (c *chain) traits() traits {
	return traits{ops: len(c.steps), cache: c.keep, changes: c.changes || c.keep}
}

// The steps that are used in many chains.

func putRoot() step { return step{op: opPutRootFH} }

func putFH(fh handle) step {
	return step{op: opPutFH, args: func(b []byte) []byte { return xdr.AppendOpaque(b, fh) }}
}

func saveFH() step { return step{op: opSaveFH} }

func lookup(name string) step {
	return step{op: opLookup, args: func(b []byte) []byte { return xdr.AppendString(b, name) }}
}

func getFH(fh *handle) step {
	return step{op: opGetFH, result: func(r *results) { *fh = append(handle(nil), r.Opaque(maxHandle)...) }}
}

func getAttr(which bitmap, a *attributes) step {
	return step{op: opGetAttr, args: which.append, result: func(r *results) { a.read(&r.Reader) }}
}

func appendStateID(b []byte, id stateID) []byte {
	b = xdr.AppendUint32(b, id.seq)
	return append(b, id.other[:]...)
}

func readStateID(r *results) (id stateID) {
	id.seq = r.Uint32()
	copy(id.other[:], r.Fixed(len(id.other)))
	return id
}

// readChange takes a change_info4.
func readChange(r *results) {
	r.Bool()
	r.Uint64()
	r.Uint64()
}

package nfstest

import (
	"path"
	"strings"

	"sluice/backends/nfs/xdr"
)

func nothing(*request) uint32 { return ok }

// mount3 are the procedures of MOUNT version 3 (RFC 1813 appendix I).
var mount3 = [...]proc{
	{name: "NULL", empty: noStatus, do: nothing},
	{name: "MNT", do: (*request).mnt},
	{name: "DUMP", empty: noStatus, do: (*request).emptyList},
	{name: "UMNT", empty: noStatus, do: (*request).umnt},
	{name: "UMNTALL", empty: noStatus, do: nothing},
	{name: "EXPORT", empty: noStatus, do: (*request).exports},
}

// portmap2 are those of the port mapper (RFC 1833 section 3).
var portmap2 = [...]proc{
	{name: "NULL", empty: noStatus, do: nothing},
	{}, {}, // SET and UNSET are not for others
	{name: "GETPORT", empty: noStatus, do: (*request).getport},
}

func (q *request) emptyList() uint32 {
	q.out = xdr.AppendBool(q.out, false)
	return ok
}

// mnt gives the handle of the export or of a directory below it.
func (q *request) mnt() uint32 {
	dir := path.Clean("/" + q.args.String(1024))
	export := path.Clean(q.srv.options.Export)
	if dir != export && !strings.HasPrefix(dir, strings.TrimSuffix(export, "/")+"/") {
		return errAccess
	}
	n := q.srv.tree.walk(dir)
	switch {
	case n == nil:
		return errNoEnt
	case n.kind != kindDir:
		return errNotDir
	}
	q.out = xdr.AppendOpaque(q.out, n.handle())
	for _, v := range []uint32{2, authSys, authNone} {
		q.out = xdr.AppendUint32(q.out, v)
	}
	return ok
}

func (q *request) umnt() uint32 {
	q.args.Opaque(1024)
	return ok
}

func (q *request) exports() uint32 {
	q.out = xdr.AppendString(xdr.AppendBool(q.out, true), q.srv.options.Export)
	q.out = xdr.AppendBool(xdr.AppendBool(q.out, false), false) // open to all, the only one
	return ok
}

// getport knows the programs that are served, over TCP.
func (q *request) getport() uint32 {
	const tcp = 6
	program, version, protocol := q.args.Uint32(), q.args.Uint32(), q.args.Uint32()
	q.args.Skip(4)
	port := uint32(0)
	served := program == programNFS && (version == 3 || version == 4 && len(q.srv.minor) > 0) ||
		program == programMount && version == 3 || program == programPortmap && version == 2
	if served && protocol == tcp {
		port = uint32(portOf(q.srv.addrs[0]))
	}
	q.out = xdr.AppendUint32(q.out, port)
	return ok
}

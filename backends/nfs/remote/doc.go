// Package remote is what an NFS server offers whatever the version: the vocabulary
// between the Device and the Store (backends/nfs), which use it, and the protocol
// versions (v3, v4), which implement it. It holds no code but that of its values.
//
// Paths are those of the server, with slashes, as the URL has them: "/export/a.img".
// Errors carry a block.Kind; a *nfsstat.Error where the server refused, a
// *rpc.LostError (kind Transient) where it could not be asked. They do not name the
// file: the caller, who knows the URL, wraps them.
package remote

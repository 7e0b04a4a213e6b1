// Package nfstest is an NFS server for tests: NFSv4.1 and 4.2 (RFC 8881, RFC 7862),
// NFSv3 with MOUNT and the port mapper (RFC 1813, RFC 1833), over TCP on loopback, on
// a tree in memory. It is honest until a test says otherwise.
//
// What makes it a server for tests:
//
//   - each file has a volatile and a durable content; [Server.Restart] and [Server.Lose]
//     forget what no client had made durable;
//   - [Server.Fail] answers with errors, [Server.Delay] makes calls wait, and
//     [Server.Hook] decides for each operation what becomes of it and of the reply, down
//     to the bytes of the record;
//   - time passes only when [Server.Advance] says so, hence no lease runs out by chance;
//   - [Server.Count], [Server.Arrived] and [Server.Writes] tell what came.
//
// Operations are named as the RFCs do: those of NFSv4 plainly ("READ", "SEQUENCE", and
// "COMPOUND" for the whole), procedures of NFSv3 "v3.READ", of MOUNT "mount.MNT", of the
// port mapper "portmap.GETPORT", and "v4.NULL". "*" is any of them.
//
// Where the RFCs leave a choice it takes the one that is harder for clients. What
// ALLOCATE, DEALLOCATE, COPY and CLONE did is durable only after a COMMIT; an open needs
// RECLAIM_COMPLETE before it; NFSv3 has no reply cache, so what is repeated runs twice.
//
// It reads the RFCs by itself: nothing of the client is used but the encoding of
// integers and strings, so that an error in one is not repeated in the other.
//
// Goroutines: one for each listener, one for each connection, which reads calls, and one
// for each call. The calls of a connection run one after the other in the order of
// their arrival; one that [Server.Delay] holds lets the next go ahead. All of them belong
// to the Server, whose Close ends and awaits them. Server.mu guards all state, and is
// not held while a hook runs or bytes are sent. As the answer to a callback comes on a
// connection whose reader waits for the hook, a hook must not wait for a callback.
package nfstest

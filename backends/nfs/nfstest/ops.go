package nfstest

import (
	"sluice/backends/nfs/xdr"
)

const (
	opSequence = 53
	illegal    = 10044
)

// operations are those of NFSv4.1 and 4.2 by number. Those that have no function are
// known and not supported; as their arguments cannot be skipped they end a compound,
// as they would anyhow.
var operations map[uint32]*operation

func init() {
	list := map[uint32]operation{
		3: {name: "ACCESS", do: (*compound).access}, 4: {name: "CLOSE", do: (*compound).closeFile},
		5: {name: "COMMIT", do: (*compound).commit}, 6: {name: "CREATE", do: (*compound).create},
		8: {name: "DELEGRETURN", do: (*compound).delegReturn}, 9: {name: "GETATTR", do: (*compound).getattr},
		10: {name: "GETFH", do: (*compound).getfh}, 11: {name: "LINK", do: (*compound).link},
		12: {name: "LOCK", do: (*compound).lock}, 13: {name: "LOCKT", do: (*compound).lockt},
		14: {name: "LOCKU", do: (*compound).locku}, 15: {name: "LOOKUP", do: (*compound).lookupName},
		16: {name: "LOOKUPP", do: (*compound).lookupParent}, 17: {name: "NVERIFY"}, 18: {name: "OPEN", do: (*compound).open},
		19: {name: "OPENATTR"}, 21: {name: "OPEN_DOWNGRADE", do: (*compound).openDowngrade},
		22: {name: "PUTFH", do: (*compound).putfh}, 23: {name: "PUTPUBFH", do: (*compound).putrootfh},
		24: {name: "PUTROOTFH", do: (*compound).putrootfh}, 25: {name: "READ", do: (*compound).read},
		26: {name: "READDIR", do: (*compound).readdir}, 27: {name: "READLINK", do: (*compound).readlink},
		28: {name: "REMOVE", do: (*compound).remove}, 29: {name: "RENAME", do: (*compound).rename},
		31: {name: "RESTOREFH", do: (*compound).restorefh}, 32: {name: "SAVEFH", do: (*compound).savefh},
		33: {name: "SECINFO"}, 34: {name: "SETATTR", do: (*compound).setattr}, 37: {name: "VERIFY"},
		38: {name: "WRITE", do: (*compound).write}, 40: {name: "BACKCHANNEL_CTL"},
		41: {name: "BIND_CONN_TO_SESSION", alone: true, do: (*compound).bindConn},
		42: {name: "EXCHANGE_ID", alone: true, do: (*compound).exchangeID},
		43: {name: "CREATE_SESSION", alone: true, do: (*compound).createSession},
		44: {name: "DESTROY_SESSION", alone: true, do: (*compound).destroySession},
		45: {name: "FREE_STATEID", do: (*compound).freeStateid}, 46: {name: "GET_DIR_DELEGATION"},
		47: {name: "GETDEVICEINFO"}, 48: {name: "GETDEVICELIST"}, 49: {name: "LAYOUTCOMMIT"}, 50: {name: "LAYOUTGET"},
		51: {name: "LAYOUTRETURN"}, 52: {name: "SECINFO_NO_NAME", do: (*compound).secinfoNoName},
		opSequence: {name: "SEQUENCE", alone: true, do: (*compound).sequence}, 54: {name: "SET_SSV"},
		55: {name: "TEST_STATEID", do: (*compound).testStateid}, 56: {name: "WANT_DELEGATION"},
		57: {name: "DESTROY_CLIENTID", alone: true, do: (*compound).destroyClientID},
		58: {name: "RECLAIM_COMPLETE", do: (*compound).reclaimComplete},

		59: {name: "ALLOCATE", minor: 2, do: (*compound).allocate}, 60: {name: "COPY", minor: 2, do: (*compound).copy},
		61: {name: "COPY_NOTIFY", minor: 2}, 62: {name: "DEALLOCATE", minor: 2, do: (*compound).deallocate},
		63: {name: "IO_ADVISE", minor: 2}, 64: {name: "LAYOUTERROR", minor: 2}, 65: {name: "LAYOUTSTATS", minor: 2},
		66: {name: "OFFLOAD_CANCEL", minor: 2}, 67: {name: "OFFLOAD_STATUS", minor: 2},
		68: {name: "READ_PLUS", minor: 2, do: (*compound).readPlus}, 69: {name: "SEEK", minor: 2, do: (*compound).seek},
		70: {name: "WRITE_SAME", minor: 2}, 71: {name: "CLONE", minor: 2, do: (*compound).clone},

		illegal: {name: "ILLEGAL", do: func(*compound, *xdr.Reader) uint32 { return errOpIllegal }},
	}
	operations = make(map[uint32]*operation, len(list))
	for n, op := range list {
		if op.do == nil {
			op.do = func(*compound, *xdr.Reader) uint32 { return errNotSupp }
		}
		operations[n] = &op
	}
}

package v4

// Numbers of RFC 8881 and RFC 7862.
const (
	program = 100003
	version = 4

	procNull     = 0
	procCompound = 1
)

const (
	opAccess          = 3
	opClose           = 4
	opCommit          = 5
	opCreate          = 6
	opDelegReturn     = 8
	opGetAttr         = 9
	opGetFH           = 10
	opLink            = 11
	opLock            = 12
	opLockU           = 14
	opLookup          = 15
	opOpen            = 18
	opPutFH           = 22
	opPutRootFH       = 24
	opRead            = 25
	opReadDir         = 26
	opReadLink        = 27
	opRemove          = 28
	opRename          = 29
	opSaveFH          = 32
	opSetAttr         = 34
	opWrite           = 38
	opBindConn        = 41
	opExchangeID      = 42
	opCreateSession   = 43
	opDestroySession  = 44
	opFreeStateID     = 45
	opSequence        = 53
	opTestStateID     = 55
	opDestroyClientID = 57
	opReclaimComplete = 58
	opAllocate        = 59
	opCopy            = 60
	opDeallocate      = 62
	opSeek            = 69
	opClone           = 71
)

var opNames = map[uint32]string{
	opAccess: "ACCESS", opClose: "CLOSE", opCommit: "COMMIT", opCreate: "CREATE", opDelegReturn: "DELEGRETURN", opGetAttr: "GETATTR",
	opGetFH: "GETFH", opLink: "LINK", opLock: "LOCK", opLockU: "LOCKU", opLookup: "LOOKUP", opOpen: "OPEN", opPutFH: "PUTFH",
	opPutRootFH: "PUTROOTFH", opRead: "READ", opReadDir: "READDIR", opReadLink: "READLINK", opRemove: "REMOVE", opRename: "RENAME",
	opSaveFH: "SAVEFH", opSetAttr: "SETATTR", opWrite: "WRITE", opBindConn: "BIND_CONN_TO_SESSION", opExchangeID: "EXCHANGE_ID",
	opCreateSession: "CREATE_SESSION", opDestroySession: "DESTROY_SESSION", opFreeStateID: "FREE_STATEID", opSequence: "SEQUENCE",
	opTestStateID: "TEST_STATEID", opDestroyClientID: "DESTROY_CLIENTID", opReclaimComplete: "RECLAIM_COMPLETE", opAllocate: "ALLOCATE",
	opCopy: "COPY", opDeallocate: "DEALLOCATE", opSeek: "SEEK", opClone: "CLONE",
}

// EXCHANGE_ID (section 18.35).
const (
	exchangeUseNonPNFS = 0x00010000
	exchangeConfirmed  = 0x80000000
)

// CREATE_SESSION (section 18.36) and BIND_CONN_TO_SESSION (18.34).
const (
	sessionBackChannel = 2
	bindForeOrBoth     = 3
)

// The flags of SEQUENCE's result (section 18.46) that say that state was lost.
const (
	flagExpiredAll     = 0x08
	flagExpiredSome    = 0x10
	flagAdminRevoked   = 0x20
	flagReclaimNeeded  = 0x100
	flagsStateRevoked  = flagExpiredAll | flagExpiredSome | flagAdminRevoked
	flagsWantAttention = flagsStateRevoked | flagReclaimNeeded
)

// OPEN (section 18.16).
const (
	shareRead    = 1
	shareWrite   = 2
	shareNoDeleg = 0x400
	denyNone     = 0
	denyWrite    = 2

	openNoCreate   = 0
	openCreate     = 1
	createExcl41   = 3
	claimNull      = 0
	claimPrevious  = 1
	claimFH        = 4
	delegNone      = 0
	delegRead      = 1
	delegWrite     = 2
	delegNoneExt   = 3
	limitSize      = 1
	whyContention  = 1
	whyResource    = 2
	maxHandle      = 128
	maxName        = 4096
	maxAttrs       = 16 << 10
	maxBitmapWords = 64
)

// WRITE's stable_how4.
const (
	unstable = 0
	fileSync = 2
)

const (
	seekData = 0
	seekHole = 1
)

const (
	lockRead  = 1
	lockWrite = 2
)

// Types of files.
const (
	typeRegular   = 1
	typeDirectory = 2
	typeSymlink   = 5
)

// stateID names an open or a lock (section 9.1.2).
type stateID struct {
	seq   uint32
	other [12]byte
}

// anonymous is the special stateid of all zeroes, for SETATTR without an open.
var anonymous stateID

// handle is a file handle.
type handle []byte

package nfsstat

import (
	"fmt"

	"sluice/block"
)

// Status is an nfsstat3 or nfsstat4: where both have a number, it means the same.
type Status uint32

// The numbers (RFC 1813 section 2.6, RFC 8881 section 15.1, RFC 7862 section 11).
const (
	OK                    Status = 0
	Perm                  Status = 1
	NoEnt                 Status = 2
	IO                    Status = 5
	NXIO                  Status = 6
	Access                Status = 13
	Exist                 Status = 17
	XDev                  Status = 18
	NoDev                 Status = 19
	NotDir                Status = 20
	IsDir                 Status = 21
	Inval                 Status = 22
	FBig                  Status = 27
	NoSpc                 Status = 28
	ROFS                  Status = 30
	MLink                 Status = 31
	NameTooLong           Status = 63
	NotEmpty              Status = 66
	DQuot                 Status = 69
	Stale                 Status = 70
	Remote                Status = 71
	BadHandle             Status = 10001
	NotSync               Status = 10002
	BadCookie             Status = 10003
	NotSupp               Status = 10004
	TooSmall              Status = 10005
	ServerFault           Status = 10006
	Badtype               Status = 10007
	Delay                 Status = 10008
	Same                  Status = 10009
	Denied                Status = 10010
	Expired               Status = 10011
	Locked                Status = 10012
	Grace                 Status = 10013
	FHExpired             Status = 10014
	ShareDenied           Status = 10015
	WrongSec              Status = 10016
	ClidInUse             Status = 10017
	Resource              Status = 10018
	Moved                 Status = 10019
	NoFileHandle          Status = 10020
	MinorVersMismatch     Status = 10021
	StaleClientID         Status = 10022
	StaleStateID          Status = 10023
	OldStateID            Status = 10024
	BadStateID            Status = 10025
	BadSeqid              Status = 10026
	NotSame               Status = 10027
	LockRange             Status = 10028
	Symlink               Status = 10029
	Restorefh             Status = 10030
	LeaseMoved            Status = 10031
	Attrnotsupp           Status = 10032
	NoGrace               Status = 10033
	ReclaimBad            Status = 10034
	ReclaimConflict       Status = 10035
	BadXDR                Status = 10036
	LocksHeld             Status = 10037
	OpenMode              Status = 10038
	Badowner              Status = 10039
	Badchar               Status = 10040
	Badname               Status = 10041
	BadRange              Status = 10042
	LockNotsupp           Status = 10043
	OpIllegal             Status = 10044
	Deadlock              Status = 10045
	FileOpen              Status = 10046
	AdminRevoked          Status = 10047
	CbPathDown            Status = 10048
	BadSession            Status = 10052
	BadSlot               Status = 10053
	CompleteAlready       Status = 10054
	ConnNotBoundToSession Status = 10055
	SeqMisordered         Status = 10063
	SequencePos           Status = 10064
	ReqTooBig             Status = 10065
	RepTooBig             Status = 10066
	RepTooBigToCache      Status = 10067
	RetryUncachedRep      Status = 10068
	UnsafeCompound        Status = 10069
	TooManyOps            Status = 10070
	OpNotInSession        Status = 10071
	ClientidBusy          Status = 10074
	SeqFalseRetry         Status = 10076
	BadHighSlot           Status = 10077
	DeadSession           Status = 10078
	EncrAlgUnsupp         Status = 10079
	NotOnlyOp             Status = 10081
	WrongCred             Status = 10082
	WrongType             Status = 10083
	RejectDeleg           Status = 10085
	DelegRevoked          Status = 10087
	PartnerNotsupp        Status = 10088
	PartnerNoAuth         Status = 10089
	UnionNotsupp          Status = 10090
	OffloadDenied         Status = 10091
	WrongLfs              Status = 10092
	Badlabel              Status = 10093
	OffloadNoReqs         Status = 10094
	Noxattr               Status = 10095
	Xattr2big             Status = 10096
)

var table = map[Status]struct {
	name string
	kind block.Kind
}{
	OK:                    {"NFSERR_OK", block.OK},
	Perm:                  {"NFSERR_PERM", block.Permission},
	NoEnt:                 {"NFSERR_NOENT", block.NotFound},
	IO:                    {"NFSERR_IO", block.IO},
	NXIO:                  {"NFSERR_NXIO", block.NotFound},
	Access:                {"NFSERR_ACCESS", block.Permission},
	Exist:                 {"NFSERR_EXIST", block.Exists},
	XDev:                  {"NFSERR_XDEV", block.Unsupported},
	NoDev:                 {"NFSERR_NODEV", block.NotFound},
	NotDir:                {"NFSERR_NOTDIR", block.Invalid},
	IsDir:                 {"NFSERR_ISDIR", block.Invalid},
	Inval:                 {"NFSERR_INVAL", block.Invalid},
	FBig:                  {"NFSERR_FBIG", block.NoSpace},
	NoSpc:                 {"NFSERR_NOSPC", block.NoSpace},
	ROFS:                  {"NFSERR_ROFS", block.ReadOnly},
	MLink:                 {"NFSERR_MLINK", block.NoSpace},
	NameTooLong:           {"NFSERR_NAMETOOLONG", block.Invalid},
	NotEmpty:              {"NFSERR_NOTEMPTY", block.Exists},
	DQuot:                 {"NFSERR_DQUOT", block.NoSpace},
	Stale:                 {"NFSERR_STALE", block.IO},
	Remote:                {"NFSERR_REMOTE", block.IO},
	BadHandle:             {"NFSERR_BADHANDLE", block.IO},
	NotSync:               {"NFSERR_NOT_SYNC", block.Transient},
	BadCookie:             {"NFS4ERR_BAD_COOKIE", block.IO},
	NotSupp:               {"NFSERR_NOTSUPP", block.Unsupported},
	TooSmall:              {"NFSERR_TOOSMALL", block.IO},
	ServerFault:           {"NFSERR_SERVERFAULT", block.IO},
	Badtype:               {"NFSERR_BADTYPE", block.Invalid},
	Delay:                 {"NFSERR_DELAY", block.Transient},
	Same:                  {"NFS4ERR_SAME", block.IO},
	Denied:                {"NFS4ERR_DENIED", block.Busy},
	Expired:               {"NFS4ERR_EXPIRED", block.Transient},
	Locked:                {"NFS4ERR_LOCKED", block.Busy},
	Grace:                 {"NFS4ERR_GRACE", block.Transient},
	FHExpired:             {"NFS4ERR_FHEXPIRED", block.IO},
	ShareDenied:           {"NFS4ERR_SHARE_DENIED", block.Busy},
	WrongSec:              {"NFS4ERR_WRONGSEC", block.Permission},
	ClidInUse:             {"NFS4ERR_CLID_INUSE", block.Busy},
	Resource:              {"NFS4ERR_RESOURCE", block.IO},
	Moved:                 {"NFS4ERR_MOVED", block.IO},
	NoFileHandle:          {"NFS4ERR_NOFILEHANDLE", block.IO},
	MinorVersMismatch:     {"NFS4ERR_MINOR_VERS_MISMATCH", block.Unsupported},
	StaleClientID:         {"NFS4ERR_STALE_CLIENTID", block.Transient},
	StaleStateID:          {"NFS4ERR_STALE_STATEID", block.Transient},
	OldStateID:            {"NFS4ERR_OLD_STATEID", block.Transient},
	BadStateID:            {"NFS4ERR_BAD_STATEID", block.Transient},
	BadSeqid:              {"NFS4ERR_BAD_SEQID", block.IO},
	NotSame:               {"NFS4ERR_NOT_SAME", block.IO},
	LockRange:             {"NFS4ERR_LOCK_RANGE", block.Invalid},
	Symlink:               {"NFS4ERR_SYMLINK", block.Invalid},
	Restorefh:             {"NFS4ERR_RESTOREFH", block.IO},
	LeaseMoved:            {"NFS4ERR_LEASE_MOVED", block.IO},
	Attrnotsupp:           {"NFS4ERR_ATTRNOTSUPP", block.Unsupported},
	NoGrace:               {"NFS4ERR_NO_GRACE", block.Transient},
	ReclaimBad:            {"NFS4ERR_RECLAIM_BAD", block.IO},
	ReclaimConflict:       {"NFS4ERR_RECLAIM_CONFLICT", block.IO},
	BadXDR:                {"NFS4ERR_BADXDR", block.IO},
	LocksHeld:             {"NFS4ERR_LOCKS_HELD", block.Busy},
	OpenMode:              {"NFS4ERR_OPENMODE", block.Permission},
	Badowner:              {"NFS4ERR_BADOWNER", block.Invalid},
	Badchar:               {"NFS4ERR_BADCHAR", block.Invalid},
	Badname:               {"NFS4ERR_BADNAME", block.Invalid},
	BadRange:              {"NFS4ERR_BAD_RANGE", block.Invalid},
	LockNotsupp:           {"NFS4ERR_LOCK_NOTSUPP", block.Unsupported},
	OpIllegal:             {"NFS4ERR_OP_ILLEGAL", block.Unsupported},
	Deadlock:              {"NFS4ERR_DEADLOCK", block.Busy},
	FileOpen:              {"NFS4ERR_FILE_OPEN", block.Busy},
	AdminRevoked:          {"NFS4ERR_ADMIN_REVOKED", block.Fenced},
	CbPathDown:            {"NFS4ERR_CB_PATH_DOWN", block.IO},
	BadSession:            {"NFS4ERR_BADSESSION", block.Transient},
	BadSlot:               {"NFS4ERR_BADSLOT", block.Transient},
	CompleteAlready:       {"NFS4ERR_COMPLETE_ALREADY", block.IO},
	ConnNotBoundToSession: {"NFS4ERR_CONN_NOT_BOUND_TO_SESSION", block.Transient},
	SeqMisordered:         {"NFS4ERR_SEQ_MISORDERED", block.Transient},
	SequencePos:           {"NFS4ERR_SEQUENCE_POS", block.IO},
	ReqTooBig:             {"NFS4ERR_REQ_TOO_BIG", block.IO},
	RepTooBig:             {"NFS4ERR_REP_TOO_BIG", block.IO},
	RepTooBigToCache:      {"NFS4ERR_REP_TOO_BIG_TO_CACHE", block.IO},
	RetryUncachedRep:      {"NFS4ERR_RETRY_UNCACHED_REP", block.Transient},
	UnsafeCompound:        {"NFS4ERR_UNSAFE_COMPOUND", block.IO},
	TooManyOps:            {"NFS4ERR_TOO_MANY_OPS", block.IO},
	OpNotInSession:        {"NFS4ERR_OP_NOT_IN_SESSION", block.IO},
	ClientidBusy:          {"NFS4ERR_CLIENTID_BUSY", block.Busy},
	SeqFalseRetry:         {"NFS4ERR_SEQ_FALSE_RETRY", block.Transient},
	BadHighSlot:           {"NFS4ERR_BAD_HIGH_SLOT", block.Transient},
	DeadSession:           {"NFS4ERR_DEADSESSION", block.Transient},
	EncrAlgUnsupp:         {"NFS4ERR_ENCR_ALG_UNSUPP", block.Unsupported},
	NotOnlyOp:             {"NFS4ERR_NOT_ONLY_OP", block.IO},
	WrongCred:             {"NFS4ERR_WRONG_CRED", block.Permission},
	WrongType:             {"NFS4ERR_WRONG_TYPE", block.Invalid},
	RejectDeleg:           {"NFS4ERR_REJECT_DELEG", block.IO},
	DelegRevoked:          {"NFS4ERR_DELEG_REVOKED", block.IO},
	PartnerNotsupp:        {"NFS4ERR_PARTNER_NOTSUPP", block.Unsupported},
	PartnerNoAuth:         {"NFS4ERR_PARTNER_NO_AUTH", block.Permission},
	UnionNotsupp:          {"NFS4ERR_UNION_NOTSUPP", block.Unsupported},
	OffloadDenied:         {"NFS4ERR_OFFLOAD_DENIED", block.IO},
	WrongLfs:              {"NFS4ERR_WRONG_LFS", block.IO},
	Badlabel:              {"NFS4ERR_BADLABEL", block.IO},
	OffloadNoReqs:         {"NFS4ERR_OFFLOAD_NO_REQS", block.Unsupported},
	Noxattr:               {"NFS4ERR_NOXATTR", block.NotFound},
	Xattr2big:             {"NFS4ERR_XATTR2BIG", block.NoSpace},
}

// String gives the name, or the number of what has none.
func (s Status) String() string {
	if e, ok := table[s]; ok {
		return e.name
	}
	return fmt.Sprintf("NFS status %d", uint32(s))
}

// Kind is what sort of failure it is; IO for what is not known.
func (s Status) Kind() block.Kind {
	if e, ok := table[s]; ok {
		return e.kind
	}
	return block.IO
}

// Error is an operation that the server refused.
type Error struct {
	Op     string // as the protocol calls it
	Status Status
}

// Error says what it means, and names the operation and the status.
func (e *Error) Error() string {
	return fmt.Sprintf("%v (%s: %v)", e.Status.Kind(), e.Op, e.Status)
}

// Is matches the block.Kind of the status, or the Status.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case block.Kind:
		return t == e.Status.Kind()
	case Status:
		return t == e.Status
	}
	return false
}

// Error makes a Status match in errors.Is.
func (s Status) Error() string { return s.String() }

// Unwrap gives the kind, for block.KindOf.
func (e *Error) Unwrap() error { return e.Status.Kind() }

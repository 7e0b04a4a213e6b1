package v3

import "strconv"

// Numbers of RFC 1813 and RFC 1833.
const (
	program = 100003
	version = 3

	mountProgram = 100005
	mountVersion = 3
	mountMnt     = 1
	mountUmnt    = 3
	mountExport  = 5

	portmapProgram = 100000
	portmapVersion = 2
	portmapGetPort = 3
	portmapPort    = 111
	protocolTCP    = 6
)

// Procedures (RFC 1813, section 3.3).
const (
	procGetAttr     = 1
	procSetAttr     = 2
	procLookup      = 3
	procAccess      = 4
	procReadLink    = 5
	procRead        = 6
	procWrite       = 7
	procCreate      = 8
	procMkDir       = 9
	procRemove      = 12
	procRename      = 14
	procLink        = 15
	procReadDir     = 16
	procReadDirPlus = 17
	procFSStat      = 18
	procFSInfo      = 19
	procCommit      = 21
)

// procedure is what is known of one.
type procedure struct {
	name    string
	changes bool
}

var procedures = [...]procedure{
	0:               {name: "NULL"},
	procGetAttr:     {name: "GETATTR"},
	procSetAttr:     {name: "SETATTR", changes: true},
	procLookup:      {name: "LOOKUP"},
	procAccess:      {name: "ACCESS"},
	procReadLink:    {name: "READLINK"},
	procRead:        {name: "READ"},
	procWrite:       {name: "WRITE", changes: true},
	procCreate:      {name: "CREATE", changes: true},
	procMkDir:       {name: "MKDIR", changes: true},
	procRemove:      {name: "REMOVE", changes: true},
	procRename:      {name: "RENAME", changes: true},
	procLink:        {name: "LINK", changes: true},
	procReadDir:     {name: "READDIR"},
	procReadDirPlus: {name: "READDIRPLUS"},
	procFSStat:      {name: "FSSTAT"},
	procFSInfo:      {name: "FSINFO"},
	procCommit:      {name: "COMMIT"},
}

// nameOf is what the RFC calls a procedure.
func nameOf(proc uint32) string {
	if int(proc) < len(procedures) && procedures[proc].name != "" {
		return procedures[proc].name
	}
	return "procedure " + strconv.Itoa(int(proc))
}

const (
	maxHandle = 64   // bytes (section 2.4)
	maxName   = 4096 // of a name or a link's target
	maxPath   = 1024 // of an export (appendix I)

	attrSize    = 84 // of a fattr3 in bytes
	preAttrSize = 24 // of a wcc_attr
)

// WRITE's stable_how.
const (
	unstable = 0
	fileSync = 2
)

// CREATE's createmode3.
const (
	createGuarded   = 1
	createExclusive = 2
)

// SETATTR's time_how.
const (
	timeKeep   = 0
	timeServer = 1
)

// ACCESS's bits.
const (
	accessRead   = 1
	accessModify = 4
)

// Types of files.
const (
	typeRegular   = 1
	typeDirectory = 2
	typeSymlink   = 5
	typeLast      = 7
)

// handle is a file handle.
type handle []byte

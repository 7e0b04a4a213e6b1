package nbd

import (
	"fmt"

	"sluice/block"
)

// fault says why a request is refused.
type fault struct {
	code wireError // wireOK: the request is good
	kind block.Kind
	text string
}

func bad(code wireError, kind block.Kind, format string, args ...any) fault {
	return fault{code, kind, fmt.Sprintf(format, args...)}
}

// knownFlags lists the flags that each command takes besides FUA, which proto.md
// tolerates everywhere once it is advertised. A command that is not here does
// not exist.
var knownFlags = [...]commandFlags{
	cmdRead:        cfDF,
	cmdWrite:       0,
	cmdFlush:       0,
	cmdTrim:        0,
	cmdCache:       0,
	cmdWriteZeroes: cfNoHole | cfFastZero,
	cmdBlockStatus: cfReqOne,
}

// opOf is the kind of request that metrics count a command as.
func opOf(cmd command) Op {
	switch cmd {
	case cmdWrite:
		return OpWrite
	case cmdFlush:
		return OpFlush
	case cmdTrim:
		return OpTrim
	case cmdWriteZeroes:
		return OpZero
	case cmdCache:
		return OpCache
	case cmdBlockStatus:
		return OpStatus
	}
	return OpRead
}

// validate checks everything about a request that can be checked without the
// device: command, flags, what was negotiated, permission, range. After it the
// dispatcher relies on that.
func (c *serverConn) validate(req request) fault {
	if int(req.cmd) >= len(knownFlags) {
		return bad(wireEINVAL, block.Invalid, "unknown command %d", uint16(req.cmd))
	}
	if f := c.validateFlags(req, knownFlags[req.cmd]|cfFUA); f.code != wireOK {
		return f
	}
	if req.cmd == cmdFlush {
		if req.offset != 0 || req.length != 0 {
			return bad(wireEINVAL, block.Invalid, "flush with offset %d and length %d", req.offset, req.length)
		}
		return fault{}
	}
	changes := req.cmd == cmdWrite || req.cmd == cmdTrim || req.cmd == cmdWriteZeroes
	if changes && c.readOnly {
		return bad(wireEPERM, block.ReadOnly, "export %q is read-only", c.export)
	}
	return c.validateRange(req)
}

func (c *serverConn) validateFlags(req request, known commandFlags) fault {
	if c.extended && (req.cmd == cmdWrite || req.cmd == cmdBlockStatus && c.flags&tfBlockStatusPayload != 0) {
		known |= cfPayloadLen
	}
	if unknown := req.flags &^ known; unknown != 0 {
		return bad(wireEINVAL, block.Invalid, "flags %#x do not go with command %d", uint16(unknown), uint16(req.cmd))
	}
	switch {
	case req.cmd == cmdWrite && c.extended && req.flags&cfPayloadLen == 0:
		return bad(wireEINVAL, block.Invalid, "write without the payload flag")
	case req.cmd == cmdRead && req.flags&cfDF != 0 && !c.structured:
		return bad(wireEINVAL, block.Invalid, "DF flag without structured replies")
	case req.cmd == cmdBlockStatus && len(c.contexts) == 0:
		return bad(wireEINVAL, block.Invalid, "block status without a selected context")
	}
	return fault{}
}

func (c *serverConn) validateRange(req request) fault {
	if req.cmd == cmdBlockStatus && req.flags&cfPayloadLen != 0 {
		return c.validateStatusPayload(req)
	}
	if req.offset > c.size || req.length > c.size-req.offset {
		code := wireEINVAL
		if req.cmd == cmdWrite || req.cmd == cmdWriteZeroes {
			code = wireENOSPC
		}
		return bad(code, block.OutOfRange, "%d bytes at %d do not fit into %d", req.length, req.offset, c.size)
	}
	if (req.offset|req.length)&c.misaligned != 0 {
		// Here and not in the device, which would be given pieces of it.
		return bad(wireEINVAL, block.Invalid, "%d bytes at %d are not aligned to %d", req.length, req.offset, c.dev.Info.Block.Min)
	}
	switch {
	case req.cmd == cmdRead && req.length > maxPayload && c.structured:
		return bad(wireEOVERFLOW, block.Invalid, "%d bytes are more than the maximum of %d", req.length, maxPayload)
	case (req.cmd == cmdRead || req.cmd == cmdWrite) && req.length > maxPayload:
		return bad(wireEINVAL, block.Invalid, "%d bytes are more than the maximum of %d", req.length, maxPayload)
	case req.cmd == cmdBlockStatus && req.length == 0:
		return bad(wireEINVAL, block.Invalid, "block status of no bytes")
	}
	return fault{}
}

// validateStatusPayload checks the length of a block status filter; its content
// is checked when it has arrived.
func (c *serverConn) validateStatusPayload(req request) fault {
	if req.length < 8 || (req.length-8)%4 != 0 || req.length > 8+4*maxContexts {
		return bad(wireEINVAL, block.Invalid, "block status filter of %d bytes", req.length)
	}
	return fault{}
}

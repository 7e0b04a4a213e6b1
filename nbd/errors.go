package nbd

import (
	"errors"
	"fmt"
	"syscall"

	"sluice/block"
)

// wireError is an error number in a reply (proto.md, "Error values"). The
// protocol knows only these.
type wireError uint32

const (
	wireOK        wireError = 0
	wireEPERM     wireError = 1
	wireEIO       wireError = 5
	wireENOMEM    wireError = 12
	wireEINVAL    wireError = 22
	wireENOSPC    wireError = 28
	wireEOVERFLOW wireError = 75
	wireENOTSUP   wireError = 95
	wireESHUTDOWN wireError = 108
)

var wireErrorNames = map[wireError]string{
	wireOK: "OK", wireEPERM: "EPERM", wireEIO: "EIO", wireENOMEM: "ENOMEM", wireEINVAL: "EINVAL",
	wireENOSPC: "ENOSPC", wireEOVERFLOW: "EOVERFLOW", wireENOTSUP: "ENOTSUP", wireESHUTDOWN: "ESHUTDOWN",
}

func (e wireError) String() string {
	if name, ok := wireErrorNames[e]; ok {
		return name
	}
	return fmt.Sprintf("error %d", uint32(e))
}

// Error lets a wireError stand as the cause of a block.Error in the client.
func (e wireError) Error() string { return "server answered " + e.String() }

// wireErrorOf is the one table from kinds to the protocol's errors. What the
// protocol cannot say becomes EIO; the full text goes along where the reply has
// room for it.
func wireErrorOf(kind block.Kind) wireError {
	switch kind {
	case block.OK:
		return wireOK
	case block.Invalid, block.OutOfRange:
		return wireEINVAL
	case block.NoSpace:
		return wireENOSPC
	case block.ReadOnly, block.Permission, block.Fenced:
		return wireEPERM
	case block.Unsupported:
		return wireENOTSUP
	case block.Closed:
		return wireESHUTDOWN
	default:
		return wireEIO
	}
}

// clientText is what a client is told of an error: the operation, the kind and the
// system's reason. Where the bytes lie is no business of the client's: paths, URLs
// and servers stay in the log. An error about the request itself names nothing.
func clientText(err error) string {
	var e *block.Error
	if !errors.As(err, &e) {
		return block.KindOf(err).String()
	}
	if e.Object == "" && (e.Kind == block.Invalid || e.Kind == block.OutOfRange) {
		return err.Error()
	}
	text := e.Op + ": " + e.Kind.String()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		text += " (" + errno.Error() + ")"
	}
	return text
}

// kindOfWire is the way back, for the client.
func kindOfWire(e wireError) block.Kind {
	switch e {
	case wireOK:
		return block.OK
	case wireEPERM:
		return block.Permission
	case wireEINVAL:
		return block.Invalid
	case wireENOSPC:
		return block.NoSpace
	case wireEOVERFLOW:
		return block.Invalid
	case wireENOTSUP:
		return block.Unsupported
	case wireESHUTDOWN:
		return block.Closed
	case wireENOMEM:
		return block.Transient
	default:
		return block.IO
	}
}

package nbd

import (
	"encoding/binary"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Numbers of the protocol. Where go-nbd names them its constants are taken, the
// others follow proto.md, "Values". wire_test.go pins each to its literal value.

// Magics.
const (
	magicNBD             = protocol.NEGOTIATION_MAGIC_OLDSTYLE // "NBDMAGIC", the server's first eight bytes
	magicOption          = protocol.NEGOTIATION_MAGIC_OPTION   // "IHAVEOPT", before the flags and before each option
	magicOptionReply     = protocol.NEGOTIATION_MAGIC_REPLY
	magicRequest         = protocol.TRANSMISSION_MAGIC_REQUEST
	magicRequestExtended = uint32(0x21e41c71)
	magicSimpleReply     = protocol.TRANSMISSION_MAGIC_REPLY
	magicChunk           = uint32(0x668e33ef) // structured reply
	magicChunkExtended   = uint32(0x6e8a278c)
)

// Handshake flags (server, 16 bits) and the client's answer (32 bits).
const (
	handshakeFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	handshakeNoZeroes      = uint16(1 << 1)
)

// option is what a client asks during the handshake.
type option uint32

const (
	optExportName      option = 1
	optAbort                  = option(protocol.NEGOTIATION_ID_OPTION_ABORT)
	optList                   = option(protocol.NEGOTIATION_ID_OPTION_LIST)
	optStartTLS        option = 5
	optInfo                   = option(protocol.NEGOTIATION_ID_OPTION_INFO)
	optGo                     = option(protocol.NEGOTIATION_ID_OPTION_GO)
	optStructuredReply option = 8
	optListMetaContext option = 9
	optSetMetaContext  option = 10
	optExtendedHeaders option = 11
)

// optionReply is the type of an answer to an option. Errors have bit 31 set.
type optionReply uint32

const (
	repAck         = optionReply(protocol.NEGOTIATION_TYPE_REPLY_ACK)
	repServer      = optionReply(protocol.NEGOTIATION_TYPE_REPLY_SERVER)
	repInfo        = optionReply(protocol.NEGOTIATION_TYPE_REPLY_INFO)
	repMetaContext = optionReply(4)

	repError                optionReply = 1 << 31
	repErrUnsupported                   = optionReply(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED)
	repErrPolicy                        = repError | 2
	repErrInvalid                       = repError | 3
	repErrPlatform                      = repError | 4
	repErrTLSRequired                   = repError | 5
	repErrUnknown                       = optionReply(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN)
	repErrShutdown                      = repError | 7
	repErrBlockSizeRequired             = repError | 8
	repErrTooBig                        = repError | 9
	repErrExtHeaderRequired             = repError | 10
)

// infoType names a piece of information about an export.
type infoType uint16

const (
	infoExport      = infoType(protocol.NEGOTIATION_TYPE_INFO_EXPORT)
	infoName        = infoType(protocol.NEGOTIATION_TYPE_INFO_NAME)
	infoDescription = infoType(protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION)
	infoBlockSize   = infoType(protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE)
)

// transmissionFlags tell a client what an export can do.
type transmissionFlags uint16

const (
	tfHasFlags           = transmissionFlags(protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS)
	tfReadOnly           = transmissionFlags(1 << 1)
	tfFlush              = transmissionFlags(1 << 2)
	tfFUA                = transmissionFlags(1 << 3)
	tfRotational         = transmissionFlags(1 << 4)
	tfTrim               = transmissionFlags(1 << 5)
	tfWriteZeroes        = transmissionFlags(1 << 6)
	tfDF                 = transmissionFlags(1 << 7)
	tfMultiConn          = transmissionFlags(protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN)
	tfCache              = transmissionFlags(1 << 10)
	tfFastZero           = transmissionFlags(1 << 11)
	tfBlockStatusPayload = transmissionFlags(1 << 12)
)

// command is a request's type.
type command uint16

const (
	cmdRead        = command(protocol.TRANSMISSION_TYPE_REQUEST_READ)
	cmdWrite       = command(protocol.TRANSMISSION_TYPE_REQUEST_WRITE)
	cmdDisconnect  = command(protocol.TRANSMISSION_TYPE_REQUEST_DISC)
	cmdFlush       = command(3)
	cmdTrim        = command(4)
	cmdCache       = command(5)
	cmdWriteZeroes = command(6)
	cmdBlockStatus = command(7)
)

// commandFlags modify a request.
type commandFlags uint16

const (
	cfFUA        commandFlags = 1 << 0
	cfNoHole     commandFlags = 1 << 1
	cfDF         commandFlags = 1 << 2
	cfReqOne     commandFlags = 1 << 3
	cfFastZero   commandFlags = 1 << 4
	cfPayloadLen commandFlags = 1 << 5
)

// chunkType is the type of a structured or extended reply chunk. Errors have
// bit 15 set.
type chunkType uint16

const (
	chunkNone           chunkType = 0
	chunkOffsetData     chunkType = 1
	chunkOffsetHole     chunkType = 2
	chunkBlockStatus    chunkType = 5
	chunkBlockStatusExt chunkType = 6
	chunkIsError        chunkType = 1 << 15
	chunkError                    = chunkIsError | 1
	chunkErrorOffset              = chunkIsError | 2

	chunkFlagDone = uint16(1)
)

// Lengths of the fixed structures, in bytes.
const (
	requestSize         = 28 // magic 4, flags 2, type 2, cookie 8, offset 8, length 4
	requestExtendedSize = 32 // the same with a length of 8
	simpleReplySize     = 16 // magic 4, error 4, cookie 8
	chunkSize           = 20 // magic 4, flags 2, type 2, cookie 8, length 4
	chunkExtendedSize   = 32 // magic 4, flags 2, type 2, cookie 8, offset 8, length 8
	optionSize          = 16 // magic 8, option 4, length 4
	optionReplySize     = 20 // magic 8, option 4, type 4, length 4
	greetingSize        = 18 // magic 8, magic 8, flags 2
)

// Limits.
const (
	// maxString is the longest name, description or error text (proto.md,
	// "Values").
	maxString = 4096
	// maxPayload is the longest read or write payload that is accepted without
	// another agreement, and the one that is advertised.
	maxPayload = 32 << 20
	// maxOptionLength bounds an option's data: room for 64 meta context queries
	// of full length. What is longer is skipped and answered TOO_BIG up to
	// maxOptionSkip, and ends the session beyond it.
	maxOptionLength = 256 << 10
	maxOptionSkip   = 16 << 20
)

var be = binary.BigEndian

// request is a decoded request header. Both header forms decode into it.
type request struct {
	flags  commandFlags
	cmd    command
	cookie uint64
	offset uint64
	length uint64 // payload length, or the length of the effect
}

// decodeRequest reads a compact header (28 bytes). The magic was checked.
func decodeRequest(p []byte) request {
	_ = p[requestSize-1]
	return request{
		flags:  commandFlags(be.Uint16(p[4:])),
		cmd:    command(be.Uint16(p[6:])),
		cookie: be.Uint64(p[8:]),
		offset: be.Uint64(p[16:]),
		length: uint64(be.Uint32(p[24:])),
	}
}

// decodeRequestExtended reads an extended header (32 bytes).
func decodeRequestExtended(p []byte) request {
	_ = p[requestExtendedSize-1]
	return request{
		flags:  commandFlags(be.Uint16(p[4:])),
		cmd:    command(be.Uint16(p[6:])),
		cookie: be.Uint64(p[8:]),
		offset: be.Uint64(p[16:]),
		length: be.Uint64(p[24:]),
	}
}

// putRequest writes a header in the compact or the extended form and returns
// its length.
func putRequest(p []byte, r request, extended bool) int {
	magic := magicRequest
	if extended {
		magic = magicRequestExtended
	}
	be.PutUint32(p, magic)
	be.PutUint16(p[4:], uint16(r.flags))
	be.PutUint16(p[6:], uint16(r.cmd))
	be.PutUint64(p[8:], r.cookie)
	be.PutUint64(p[16:], r.offset)
	if extended {
		be.PutUint64(p[24:], r.length)
		return requestExtendedSize
	}
	be.PutUint32(p[24:], uint32(r.length))
	return requestSize
}

// putSimpleReply writes a simple reply's header.
func putSimpleReply(p []byte, code wireError, cookie uint64) {
	be.PutUint32(p, magicSimpleReply)
	be.PutUint32(p[4:], uint32(code))
	be.PutUint64(p[8:], cookie)
}

// chunk is a decoded structured or extended reply header.
type chunk struct {
	flags  uint16
	typ    chunkType
	cookie uint64
	offset uint64 // extended only: the request's own offset
	length uint64 // of the payload that follows
}

// putChunk writes a structured (20 bytes) or extended (32 bytes) header and
// returns its length.
func putChunk(p []byte, c chunk, extended bool) int {
	magic := magicChunk
	if extended {
		magic = magicChunkExtended
	}
	be.PutUint32(p, magic)
	be.PutUint16(p[4:], c.flags)
	be.PutUint16(p[6:], uint16(c.typ))
	be.PutUint64(p[8:], c.cookie)
	if extended {
		be.PutUint64(p[16:], c.offset)
		be.PutUint64(p[24:], c.length)
		return chunkExtendedSize
	}
	be.PutUint32(p[16:], uint32(c.length))
	return chunkSize
}

// decodeChunk reads a structured header (20 bytes).
func decodeChunk(p []byte) chunk {
	_ = p[chunkSize-1]
	return chunk{
		flags:  be.Uint16(p[4:]),
		typ:    chunkType(be.Uint16(p[6:])),
		cookie: be.Uint64(p[8:]),
		length: uint64(be.Uint32(p[16:])),
	}
}

// decodeChunkExtended reads an extended header (32 bytes).
func decodeChunkExtended(p []byte) chunk {
	_ = p[chunkExtendedSize-1]
	return chunk{
		flags:  be.Uint16(p[4:]),
		typ:    chunkType(be.Uint16(p[6:])),
		cookie: be.Uint64(p[8:]),
		offset: be.Uint64(p[16:]),
		length: be.Uint64(p[24:]),
	}
}

package nbd

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// TestWireConstants pins every number to its value in proto.md.
func TestWireConstants(t *testing.T) {
	pins := []struct {
		name      string
		got, want uint64
	}{
		{"NBDMAGIC", magicNBD, 0x4e42444d41474943},
		{"IHAVEOPT", magicOption, 0x49484156454F5054},
		{"option reply", magicOptionReply, 0x0003e889045565a9},
		{"request", uint64(magicRequest), 0x25609513},
		{"extended request", uint64(magicRequestExtended), 0x21e41c71},
		{"simple reply", uint64(magicSimpleReply), 0x67446698},
		{"structured reply", uint64(magicChunk), 0x668e33ef},
		{"extended reply", uint64(magicChunkExtended), 0x6e8a278c},
		{"FIXED_NEWSTYLE", uint64(handshakeFixedNewstyle), 1},
		{"NO_ZEROES", uint64(handshakeNoZeroes), 2},

		{"OPT_EXPORT_NAME", uint64(optExportName), 1}, {"OPT_ABORT", uint64(optAbort), 2}, {"OPT_LIST", uint64(optList), 3},
		{"OPT_STARTTLS", uint64(optStartTLS), 5}, {"OPT_INFO", uint64(optInfo), 6}, {"OPT_GO", uint64(optGo), 7},
		{"OPT_STRUCTURED_REPLY", uint64(optStructuredReply), 8}, {"OPT_LIST_META_CONTEXT", uint64(optListMetaContext), 9},
		{"OPT_SET_META_CONTEXT", uint64(optSetMetaContext), 10}, {"OPT_EXTENDED_HEADERS", uint64(optExtendedHeaders), 11},

		{"REP_ACK", uint64(repAck), 1}, {"REP_SERVER", uint64(repServer), 2},
		{"REP_INFO", uint64(repInfo), 3}, {"REP_META_CONTEXT", uint64(repMetaContext), 4},
		{"REP_ERR_UNSUP", uint64(repErrUnsupported), 0x80000001}, {"REP_ERR_POLICY", uint64(repErrPolicy), 0x80000002},
		{"REP_ERR_INVALID", uint64(repErrInvalid), 0x80000003}, {"REP_ERR_PLATFORM", uint64(repErrPlatform), 0x80000004},
		{"REP_ERR_TLS_REQD", uint64(repErrTLSRequired), 0x80000005}, {"REP_ERR_UNKNOWN", uint64(repErrUnknown), 0x80000006},
		{"REP_ERR_SHUTDOWN", uint64(repErrShutdown), 0x80000007},
		{"REP_ERR_BLOCK_SIZE_REQD", uint64(repErrBlockSizeRequired), 0x80000008},
		{"REP_ERR_TOO_BIG", uint64(repErrTooBig), 0x80000009},
		{"REP_ERR_EXT_HEADER_REQD", uint64(repErrExtHeaderRequired), 0x8000000a},

		{"INFO_EXPORT", uint64(infoExport), 0}, {"INFO_NAME", uint64(infoName), 1},
		{"INFO_DESCRIPTION", uint64(infoDescription), 2}, {"INFO_BLOCK_SIZE", uint64(infoBlockSize), 3},

		{"HAS_FLAGS", uint64(tfHasFlags), 1 << 0}, {"READ_ONLY", uint64(tfReadOnly), 1 << 1}, {"SEND_FLUSH", uint64(tfFlush), 1 << 2},
		{"SEND_FUA", uint64(tfFUA), 1 << 3}, {"ROTATIONAL", uint64(tfRotational), 1 << 4}, {"SEND_TRIM", uint64(tfTrim), 1 << 5},
		{"SEND_WRITE_ZEROES", uint64(tfWriteZeroes), 1 << 6}, {"SEND_DF", uint64(tfDF), 1 << 7},
		{"CAN_MULTI_CONN", uint64(tfMultiConn), 1 << 8}, {"SEND_CACHE", uint64(tfCache), 1 << 10},
		{"SEND_FAST_ZERO", uint64(tfFastZero), 1 << 11}, {"BLOCK_STATUS_PAYLOAD", uint64(tfBlockStatusPayload), 1 << 12},

		{"CMD_READ", uint64(cmdRead), 0}, {"CMD_WRITE", uint64(cmdWrite), 1}, {"CMD_DISC", uint64(cmdDisconnect), 2},
		{"CMD_FLUSH", uint64(cmdFlush), 3}, {"CMD_TRIM", uint64(cmdTrim), 4}, {"CMD_CACHE", uint64(cmdCache), 5},
		{"CMD_WRITE_ZEROES", uint64(cmdWriteZeroes), 6}, {"CMD_BLOCK_STATUS", uint64(cmdBlockStatus), 7},
		{"CMD_FLAG_FUA", uint64(cfFUA), 1 << 0}, {"CMD_FLAG_NO_HOLE", uint64(cfNoHole), 1 << 1}, {"CMD_FLAG_DF", uint64(cfDF), 1 << 2},
		{"CMD_FLAG_REQ_ONE", uint64(cfReqOne), 1 << 3}, {"CMD_FLAG_FAST_ZERO", uint64(cfFastZero), 1 << 4},
		{"CMD_FLAG_PAYLOAD_LEN", uint64(cfPayloadLen), 1 << 5},

		{"REPLY_FLAG_DONE", uint64(chunkFlagDone), 1}, {"REPLY_TYPE_NONE", uint64(chunkNone), 0},
		{"REPLY_TYPE_OFFSET_DATA", uint64(chunkOffsetData), 1}, {"REPLY_TYPE_OFFSET_HOLE", uint64(chunkOffsetHole), 2},
		{"REPLY_TYPE_BLOCK_STATUS", uint64(chunkBlockStatus), 5}, {"REPLY_TYPE_BLOCK_STATUS_EXT", uint64(chunkBlockStatusExt), 6},
		{"error bit", uint64(chunkIsError), 1 << 15}, {"REPLY_TYPE_ERROR", uint64(chunkError), 1<<15 | 1},
		{"REPLY_TYPE_ERROR_OFFSET", uint64(chunkErrorOffset), 1<<15 | 2},

		{"EPERM", uint64(wireEPERM), 1}, {"EIO", uint64(wireEIO), 5}, {"ENOMEM", uint64(wireENOMEM), 12},
		{"EINVAL", uint64(wireEINVAL), 22}, {"ENOSPC", uint64(wireENOSPC), 28}, {"EOVERFLOW", uint64(wireEOVERFLOW), 75},
		{"ENOTSUP", uint64(wireENOTSUP), 95}, {"ESHUTDOWN", uint64(wireESHUTDOWN), 108},

		{"longest string", maxString, 4096}, {"default payload", maxPayload, 1 << 25}, {"default port", DefaultPort, 10809},
	}
	for _, p := range pins {
		if p.got != p.want {
			t.Errorf("%s is %#x, want %#x", p.name, p.got, p.want)
		}
	}
}

// TestWireLikeGoNBD: our encoders and go-nbd's structures give the same bytes.
func TestWireLikeGoNBD(t *testing.T) {
	theirs := func(v any) []byte {
		var b bytes.Buffer
		if err := binary.Write(&b, binary.BigEndian, v); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	same := func(name string, ours, theirs []byte) {
		t.Helper()
		if !bytes.Equal(ours, theirs) {
			t.Errorf("%s: ours % x, go-nbd's % x", name, ours, theirs)
		}
	}
	ours := make([]byte, requestSize)
	putRequest(ours, request{flags: 0x0102, cmd: 0x0304, cookie: 0x05060708090a0b0c, offset: 0x1112131415161718, length: 0x191a1b1c}, false)
	same("request", ours, theirs(protocol.TransmissionRequestHeader{RequestMagic: protocol.TRANSMISSION_MAGIC_REQUEST,
		CommandFlags: 0x0102, Type: 0x0304, Handle: 0x05060708090a0b0c, Offset: 0x1112131415161718, Length: 0x191a1b1c}))
	ours = make([]byte, simpleReplySize)
	putSimpleReply(ours, wireEINVAL, 0x0102030405060708)
	same("simple reply", ours, theirs(protocol.TransmissionReplyHeader{ReplyMagic: protocol.TRANSMISSION_MAGIC_REPLY,
		Error: protocol.TRANSMISSION_ERROR_EINVAL, Handle: 0x0102030405060708}))
	if protocol.TRANSMISSION_ERROR_EPERM != uint32(wireEPERM) {
		t.Error("EPERM differs")
	}
	for name, s := range map[string]struct {
		size int
		v    any
	}{
		"greeting":     {greetingSize, protocol.NegotiationNewstyleHeader{}},
		"option":       {optionSize, protocol.NegotiationOptionHeader{}},
		"option reply": {optionReplySize, protocol.NegotiationReplyHeader{}},
		"export info":  {12, protocol.NegotiationReplyInfo{}},
		"block size":   {14, protocol.NegotiationReplyBlockSize{}},
	} {
		if n := binary.Size(s.v); n != s.size {
			t.Errorf("%s has %d bytes, go-nbd's %d", name, s.size, n)
		}
	}
}

// TestWireChunks: both forms of reply headers are read as they are written.
func TestWireChunks(t *testing.T) {
	want := chunk{flags: 0x0102, typ: 0x8304, cookie: 0x0506070809101112, offset: 0x1314151617181920, length: 0x21222324}
	p := make([]byte, chunkExtendedSize)
	if n := putChunk(p, want, true); n != chunkExtendedSize || decodeChunkExtended(p) != want || be.Uint32(p) != 0x6e8a278c {
		t.Errorf("extended: %d bytes, %+v", n, decodeChunkExtended(p))
	}
	if n := putChunk(p, want, false); n != chunkSize || be.Uint32(p) != 0x668e33ef {
		t.Errorf("structured: %d bytes", n)
	}
	want.offset = 0
	if got := decodeChunk(p); got != want {
		t.Errorf("structured: %+v", got)
	}
}

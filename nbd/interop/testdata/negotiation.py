"""Connect with every combination of the negotiation's switches; use the disk."""
import itertools
import os
import sys

import nbd

SOCKET = sys.argv[1]
FIXED, NO_ZEROES = nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE, nbd.HANDSHAKE_FLAG_NO_ZEROES
BOTH = (False, True)
count = 0


def connect(structured, flags, full_info, meta, block_size, opt_mode):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    h.set_handshake_flags(flags)
    h.set_full_info(full_info)
    h.set_request_block_size(block_size)
    h.set_opt_mode(opt_mode)
    if meta:
        h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_unix(SOCKET)
    if opt_mode and not flags & FIXED:
        h.opt_go()  # falls back to EXPORT_NAME
    elif opt_mode:
        assert h.aio_is_negotiating()
        names = []
        h.opt_list(lambda name, text: names.append(name) or 0)
        assert names == ["", "other"], names
        h.opt_info()
        size = h.get_size()
        if h.get_structured_replies_negotiated():
            contexts = []
            h.opt_list_meta_context(lambda name: contexts.append(name) or 0)
            every = ["base:allocation", "qemu:allocation-depth"]
            assert contexts == (every[:1] if meta else every), contexts
        try:
            h.set_export_name("nobody")
            h.opt_info()
            raise AssertionError("unknown export")
        except nbd.Error:
            h.set_export_name("")
        h.opt_go()
        assert h.get_size() == size
    return h


def use(h, sparse):
    size = h.get_size()
    for offset, n in ((0, 512), (1, 1), (4095, 70000), (size - 777, 777), (1 << 20, 1 << 20)):
        data = os.urandom(n)
        h.pwrite(data, offset)
        assert h.pread(n, offset) == data
        h.pwrite(data[::-1], offset, nbd.CMD_FLAG_FUA)
        assert h.pread(n, offset) == data[::-1]
    h.zero(100000, 5000)
    assert h.pread(100000, 5000) == bytes(100000)
    h.pwrite(b"x" * 9000, 300000)
    h.zero(9000, 300000, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    assert h.pread(9000, 300000) == bytes(9000)
    h.trim(65536, 1 << 20)
    h.cache(1 << 20, 0)
    h.flush()
    if sparse:
        chunks = []

        def chunk(data, offset, status, err):
            chunks.append((offset, len(data), status))
            assert err.value == 0

        h.zero(8 << 20, 8 << 20)
        h.pwrite(b"y" * 65536, 12 << 20)
        # A new connection knows nothing of data that was there before.
        h = connect(True, FIXED, False, False, False, False)
        data = h.pread_structured(8 << 20, 8 << 20, chunk)
        assert data == bytes(4 << 20) + b"y" * 65536 + bytes((4 << 20) - 65536)
        assert sum(n for _, n, _ in chunks) == 8 << 20, chunks
        fragments = len(chunks)
        chunks.clear()
        h.pread_structured(8 << 20, 8 << 20, chunk, nbd.CMD_FLAG_DF)
        assert len(chunks) == 1 and fragments >= 3, (chunks, fragments)
        h.shutdown()


def status(h):
    seen = []

    def extent(context, offset, entries, err):
        assert context == "base:allocation" and err.value == 0
        seen.append((offset, entries))

    h.block_status(16 << 20, 0, extent)
    assert len(seen) == 1 and sum(seen[0][1][0::2]) >= 1
    seen.clear()
    h.block_status(16 << 20, 0, extent, nbd.CMD_FLAG_REQ_ONE)
    assert len(seen[0][1]) == 2 and seen[0][1][0] <= 16 << 20


for structured, flags, full_info, meta, block_size, opt_mode in itertools.product(
        BOTH, (0, FIXED, NO_ZEROES, FIXED | NO_ZEROES), BOTH, BOTH, BOTH, BOTH):
    h = connect(structured, flags, full_info, meta, block_size, opt_mode)
    fixed = bool(flags & FIXED)
    assert h.get_structured_replies_negotiated() == (structured and fixed)
    assert h.get_protocol() == ("newstyle-fixed" if fixed else "newstyle"), h.get_protocol()
    assert h.can_df() == (structured and fixed)
    has_status = structured and fixed and meta
    if fixed and meta:
        assert h.can_meta_context("base:allocation") == has_status
    if full_info and fixed:
        assert h.get_export_description() == "described"
        assert h.get_canonical_export_name() == ""
    # A disk is used once for each form of replies and each handshake.
    if full_info or meta:
        use(h, structured and fixed)
    if has_status:
        status(h)
    count += 1
    h.shutdown()
print(count, "combinations")

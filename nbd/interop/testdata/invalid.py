"""Send what libnbd would not: the server has to refuse it and go on."""
import errno
import os
import sys

import nbd

SOCKET = sys.argv[1]
SIZE = 128 << 20


def fails(h, code, f, *args):
    try:
        f(*args)
    except nbd.Error as e:
        assert e.errnum == code, (f, args, e.errnum, e.string)
    else:
        raise AssertionError((f, args, "succeeded"))
    assert h.pread(512, 0) == bytes(512)  # the connection still works


def connect(name, structured):
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_request_structured_replies(structured)
    h.set_export_name(name)
    h.connect_unix(SOCKET)
    return h


for structured in (False, True):
    h = connect("", structured)
    too_long = errno.EOVERFLOW if structured else errno.EINVAL
    fails(h, errno.EINVAL, h.pread, 512, SIZE)
    fails(h, errno.EINVAL, h.pread, 513, SIZE - 512)
    fails(h, errno.EINVAL, h.pread, 1, 1 << 62)
    fails(h, too_long, h.pread, 33 << 20, 0)
    fails(h, errno.ENOSPC, h.pwrite, b"x" * 512, SIZE)
    fails(h, errno.ENOSPC, h.pwrite, b"x" * 513, SIZE - 512)
    fails(h, errno.EINVAL, h.pwrite, bytes(33 << 20), 0)
    fails(h, errno.ENOSPC, h.zero, 512, SIZE)
    fails(h, errno.ENOSPC, h.zero, 0xffffffff, 0)
    fails(h, errno.EINVAL, h.trim, 512, SIZE)
    fails(h, errno.EINVAL, h.cache, 512, SIZE)
    for flag in (1 << 1, 1 << 3, 1 << 4, 1 << 5, 1 << 8, 1 << 15):
        fails(h, errno.EINVAL, h.pread, 512, 0, flag)
        fails(h, errno.EINVAL, h.pwrite, b"x" * 512, 0, flag)
        fails(h, errno.EINVAL, h.trim, 512, 0, flag)
        fails(h, errno.EINVAL, h.cache, 512, 0, flag)
        fails(h, errno.EINVAL, h.flush, flag)
        if flag not in (1 << 1, 1 << 4):
            fails(h, errno.EINVAL, h.zero, 512, 0, flag)
    if not structured:
        fails(h, errno.EINVAL, h.pread, 512, 0, nbd.CMD_FLAG_DF)
    # No context was asked for.
    fails(h, errno.EINVAL, h.block_status, 512, 0, lambda *a: 0)
    # FUA goes with everything; nothing is a length too.
    h.pread(512, 0, nbd.CMD_FLAG_FUA)
    h.flush(nbd.CMD_FLAG_FUA)
    h.cache(512, 0, nbd.CMD_FLAG_FUA)
    for f in (h.trim, h.zero, h.cache):
        f(0, 0)
    h.pwrite(b"", SIZE)
    assert h.pread(0, 0) == b""
    h.shutdown()

    h = connect("ro", structured)
    for f, args in ((h.pwrite, (b"x" * 512, 0)), (h.trim, (512, 0)), (h.zero, (512, 0))):
        fails(h, errno.EPERM, f, *args)
    h.flush()
    h.shutdown()

# A soft disconnect with requests in flight.
h = connect("", True)
buffers = [nbd.Buffer.from_bytearray(bytearray(os.urandom(65536))) for _ in range(64)]
cookies = [h.aio_pwrite(b, (8 << 20) + i * 65536) for i, b in enumerate(buffers)]
h.shutdown(nbd.SHUTDOWN_ABANDON_PENDING)

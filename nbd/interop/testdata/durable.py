"""Ask for durable things one after the other; print each with its cookie when
it is answered."""
import sys

import nbd

h = nbd.NBD()
h.set_request_structured_replies(False)
h.connect_unix(sys.argv[1])
FUA = nbd.CMD_FLAG_FUA
MIB = 1 << 20


def data(n):
    return nbd.Buffer.from_bytearray(bytearray(b"x") * n)


for what, ask in (
        ("write", lambda: h.aio_pwrite(data(8192), 0)),
        ("flush", lambda: h.aio_flush()),
        ("small-fua", lambda: h.aio_pwrite(data(4096), 8192, flags=FUA)),
        ("large-fua", lambda: h.aio_pwrite(data(MIB), MIB, flags=FUA)),
        ("zero-fua", lambda: h.aio_zero(65536, MIB, flags=FUA)),
        ("trim-fua", lambda: h.aio_trim(65536, MIB, flags=FUA)),
        ("flush-again", lambda: h.aio_flush())):
    cookie = ask()
    while not h.aio_command_completed(cookie):
        h.poll(-1)
    print(what, cookie)

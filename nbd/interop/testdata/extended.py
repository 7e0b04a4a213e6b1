# Extended headers (64-bit requests) by libnbd 1.22: extended.py URI, whose export holds nothing but zeroes, of 16 GiB.
import os
import sys

import nbd

GIB = 1 << 30
MIB = 1 << 20
SIZE = 16 * GIB

h = nbd.NBD()
h.add_meta_context("base:allocation")
h.add_meta_context("qemu:allocation-depth")
h.connect_uri(sys.argv[1])
assert h.get_extended_headers_negotiated()
assert h.get_size() == SIZE, h.get_size()

found = {}


def take(context, offset, entries, error):
    found.setdefault(context, []).extend(entries)


def status(contexts=None):
    found.clear()
    if contexts:
        h.block_status_filter(SIZE, 0, contexts, take)
    else:
        h.block_status_64(SIZE, 0, take)
    return found


# A write beyond 4 GiB, and extents longer than 32 bits.
data = os.urandom(MIB)
h.pwrite(data, 6 * GIB, nbd.CMD_FLAG_FUA)
assert h.pread(MIB, 6 * GIB) == data
got = status()
assert got["base:allocation"] == [(6 * GIB, 3), (MIB, 0), (10 * GIB - MIB, 3)], got
assert sum(n for n, _ in got["qemu:allocation-depth"]) == SIZE, got

# One request of 8 GiB each.
h.zero(8 * GIB, 0)
assert h.pread(MIB, 6 * GIB) == bytes(MIB)
h.pwrite(data, 9 * GIB)
h.trim(7 * GIB, 9 * GIB)
h.flush()
assert h.pread(MIB, 9 * GIB) == bytes(MIB)

# A filter names the contexts that are asked for.
h.pwrite(data, 15 * GIB)
assert status(["base:allocation"]) == {"base:allocation": [(15 * GIB, 3), (MIB, 0), (GIB - MIB, 3)]}, found

# Data and a hole in one reply.
chunks = {}
h.pread_structured(32 * MIB, 15 * GIB, lambda p, offset, kind, error: chunks.update({offset: (len(p), kind)}))
assert chunks == {15 * GIB: (MIB, nbd.READ_DATA), 15 * GIB + MIB: (31 * MIB, nbd.READ_HOLE)}, chunks

# An error leaves the connection in order.
h.set_strict_mode(0)
try:
    h.pread(4096, SIZE)
    raise AssertionError("read beyond the end")
except nbd.Error as e:
    assert e.errno == "EINVAL", e
flying = [h.aio_pread(nbd.Buffer(65536), 15 * GIB + i * 4096) for i in range(200)]
while flying:
    h.poll(-1)
    flying = [c for c in flying if not h.aio_command_completed(c)]
h.shutdown()
print("extended headers: libnbd", h.get_version())

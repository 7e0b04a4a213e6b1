"""Write blocks and print each when the server has promised that it is durable.

Each block is written once, so that a write in flight at the server's death
cannot have changed one that was promised."""
import random
import sys

import nbd

SOCKET, HOW = sys.argv[1:]
BLOCK = 8192

h = nbd.NBD()
h.connect_unix(SOCKET)
order = list(range(h.get_size() // BLOCK))
random.Random(1).shuffle(order)
flags = nbd.CMD_FLAG_FUA if HOW == "fua" else 0
try:
    for start in range(0, len(order), 8):
        group = [(i * BLOCK, 1 + i % 255) for i in order[start:start + 8]]
        buffers = [nbd.Buffer.from_bytearray(bytearray([fill]) * BLOCK) for _, fill in group]
        cookies = [h.aio_pwrite(b, off, flags=flags) for b, (off, _) in zip(buffers, group)]
        while not all([h.aio_command_completed(c) for c in cookies if c]):
            h.poll(-1)
            cookies = [c for c in cookies if not h.aio_command_completed(c)]
        if HOW == "flush":
            h.flush()
        for off, fill in group:
            print(off, fill)
        sys.stdout.flush()
except nbd.Error:
    pass  # the server is dead

"""Connect with or without TLS, read and write.

Arguments: host and port (or a socket's path and ""), "tls", "allow" or "plain",
a folder of certificates, the export's name."""
import os
import sys

import nbd

HOST, PORT, MODE, CERTIFICATES, EXPORT = sys.argv[1:]

h = nbd.NBD()
h.set_tls({"tls": nbd.TLS_REQUIRE, "allow": nbd.TLS_ALLOW, "plain": nbd.TLS_DISABLE}[MODE])
h.set_tls_certificates(CERTIFICATES)
h.set_export_name(EXPORT)
if PORT:
    h.connect_tcp(HOST, PORT)
else:
    h.connect_unix(HOST)
print("tls", h.get_tls_negotiated())
before = h.pread(300000, 12345)
data = os.urandom(300000)
h.pwrite(data, 12345)
assert h.pread(300000, 12345) == data
h.pwrite(before, 12345, nbd.CMD_FLAG_FUA)
assert h.pread(300000, 12345) == before
h.shutdown()

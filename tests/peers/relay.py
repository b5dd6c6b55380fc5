"""Relays one connection: relay.py IN OUT LISTEN_PORT PORT [FLIP…] [+TEXT].

IN and OUT are tls or tcp. What comes from the client goes on, with one bit flipped at each offset FLIP,
and TEXT before all of it.
Needs cert.pem and key.pem in the working directory for tls.
"""
import socket
import sys

# These files lie in the source tree.
sys.dont_write_bytecode = True
import between

kind_in, kind_out, listen_port, port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
flips = [int(offset) for offset in sys.argv[5:] if offset[0] != "+"]
before = "".join(text[1:] for text in sys.argv[5:] if text[0] == "+")

near, far = between.connections(kind_in, kind_out, listen_port, port)

# One thread, one way: Python's TLS sockets are not made to be read and written at once (before 3.13 that
# may even crash), and what comes back is not asked for.
if before:
    far.sendall(before.encode() + b"\n")
at = 0
while data := bytearray(near.recv(65536)):
    for offset in flips:
        if at <= offset < at + len(data):
            data[offset - at] ^= 1
    at += len(data)
    far.sendall(data)
# Python has no half-close for TLS: ending the session is what the other end waits for.
try:
    far.unwrap() if kind_out == "tls" else far.shutdown(socket.SHUT_WR)
except OSError:
    pass

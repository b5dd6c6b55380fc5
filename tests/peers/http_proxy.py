"""A reverse proxy for one connection: http_proxy.py IN OUT LISTEN_PORT PORT [DEED…].

IN and OUT are tls or tcp. Requests and responses go on with other heads. Deeds, to requests' bodies:
chunk (in chunks), gzip, flip:N (one bit at N), insert:N (a few bytes at N), host (only the Host line is
another one, of the same length: nothing is added). Needs cert.pem and key.pem in the working directory for tls.
"""
import gzip
import socket
import sys

# These files lie in the source tree.
sys.dont_write_bytecode = True
import between

kind_in, kind_out, listen_port, port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
deeds = sys.argv[5:]

near, far = between.connections(kind_in, kind_out, listen_port, port)


class Stream:
    def __init__(self, connection):
        self.connection, self.kept = connection, b""

    def more(self):
        data = self.connection.recv(65536)
        self.kept += data
        return bool(data)

    def until(self, end):
        while end not in self.kept:
            if not self.more():
                return None
        found, _, self.kept = self.kept.partition(end)
        return found + end

    def exactly(self, count):
        """Pieces of the next `count` bytes."""
        while count > 0 and (self.kept or self.more()):
            piece, self.kept = self.kept[:count], self.kept[count:]
            count -= len(piece)
            yield piece


def message(stream):
    head = stream.until(b"\r\n\r\n")
    if not head:
        return None
    lines = head[:-4].split(b"\r\n")
    fields = {line.split(b":")[0].lower(): line.split(b":", 1)[1].strip() for line in lines[1:]}
    return lines, fields


def chunks(stream):
    while size := int(stream.until(b"\r\n"), 16):
        yield from stream.exactly(size)
        stream.until(b"\r\n")
    stream.until(b"\r\n")


def changed(pieces):
    at = 0
    for piece in pieces:
        piece = bytearray(piece)
        start, end = at, at + len(piece)
        at = end
        for deed in deeds:
            what, _, where = deed.partition(":")
            if where and start <= int(where) < end:
                place = int(where) - start
                if what == "flip":
                    piece[place] ^= 1
                else:
                    piece[place:place] = b"and this"
        yield bytes(piece)


def pass_on(lines, fields, source, target, request):
    if fields.get(b"transfer-encoding") == b"chunked":
        pieces, length = chunks(source), None
    else:
        length = int(fields.get(b"content-length", 0))
        pieces = source.exactly(length)
    names = (b"content-length", b"transfer-encoding", b"expect", b"connection")
    kept = [line for line in lines[1:] if line.split(b":")[0].lower() not in names]
    if "host" in deeds and request:
        kept = [line if not line.lower().startswith(b"host:") else line[:-4] + (b"1234" if line.endswith(b"4321") else b"4321")
                for line in lines[1:]]
    else:
        kept += [b"Via: 1.1 proxy", b"X-Forwarded-For: 127.0.0.1"]
        if request:
            pieces = changed(pieces)
            if any(deed.startswith("insert") for deed in deeds):
                length += len(b"and this")
            if "gzip" in deeds:
                body = gzip.compress(b"".join(pieces))
                pieces, length = [body], len(body)
                kept.append(b"Content-Encoding: gzip")
        if request and "chunk" in deeds:
            length = None
        kept.append(b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length)
    target.sendall(b"\r\n".join(lines[:1] + kept) + b"\r\n\r\n")
    for piece in pieces:
        target.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if length is None else piece)
    if length is None:
        target.sendall(b"0\r\n\r\n")


client, server = Stream(near), Stream(far)
while request := message(client):
    if request[1].get(b"expect") and "host" not in deeds:
        near.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    pass_on(*request, client, far, True)
    response = message(server)
    while response and response[0][0].split()[1] == b"100":
        near.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        response = message(server)
    if not response:
        break
    pass_on(*response, server, near, False)
for connection, kind in ((far, kind_out), (near, kind_in)):
    try:
        connection.unwrap() if kind == "tls" else connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass

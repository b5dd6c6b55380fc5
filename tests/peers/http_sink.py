"""An origin server: http_sink.py KIND PORT COUNT [threads]. Keeps what COUNT requests put, below got/.

KIND is tls or tcp. threads: several connections at once. A body that came gzipped is kept as it came. Needs cert.pem and key.pem in the working
directory for tls.
"""
import http.server
import os
import ssl
import sys

kind, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kept = 0

    def pieces(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            left = int(self.headers["Content-Length"])
            while left and (piece := self.rfile.read1(min(left, 65536))):
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_PUT(self):
        with open("got/" + os.path.basename(self.path), "wb") as kept:
            for piece in self.pieces():
                kept.write(piece)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()
        Handler.kept += 1
        self.close_connection = Handler.kept >= count

    do_POST = do_PUT

    def log_message(self, *_):
        pass


os.makedirs("got", exist_ok=True)
threads = sys.argv[4:] == ["threads"]
server = (http.server.ThreadingHTTPServer if threads else http.server.HTTPServer)(("127.0.0.1", port), Handler)
if threads:
    # The last request may come by a connection that was there before.
    server.timeout, server.daemon_threads = 0.1, True
if kind == "tls":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
while Handler.kept < count:
    server.handle_request()

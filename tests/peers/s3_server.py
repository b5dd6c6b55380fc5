"""An S3-like service that keeps what it is given in memory: s3_server.py PORT. Believes everybody."""
import hashlib
import http.server
import sys

kept = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        # SIZE[;chunk-signature=…] CRLF DATA CRLF … 0 CRLF trailers: what SDKs wrap uploads in.
        whole = b""
        while data:
            head, _, data = data.partition(b"\r\n")
            size = int(head.split(b";")[0], 16)
            if not size:
                break
            whole, data = whole + data[:size], data[size + 2:]
        return whole

    def answer(self, status, body=b"", length=None, etag=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        data = kept[self.path.split("?")[0]] = self.body()
        self.answer(200, etag=hashlib.md5(data).hexdigest())

    def do_GET(self):
        data = kept.get(self.path.split("?")[0])
        if data is None:
            return self.answer(404)
        self.answer(200, data, etag=hashlib.md5(data).hexdigest())

    def do_HEAD(self):
        data = kept.get(self.path.split("?")[0])
        if data is None:
            return self.answer(404)
        self.answer(200, length=len(data), etag=hashlib.md5(data).hexdigest())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

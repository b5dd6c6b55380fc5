"""Forwards one TCP connection and flips a bit: flip_proxy.py PORT TO_PORT WAY OFFSET

WAY is `up` (to the server) or `down`. Says "ready" in the file `proxy.ready` when it listens."""

import socket
import sys
import threading

port, to_port, way, offset = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
listener = socket.create_server(("127.0.0.1", port))
open("proxy.ready", "w").close()
near, _ = listener.accept()
far = socket.create_connection(("127.0.0.1", to_port))


def forward(source, sink, change):
    passed = 0
    try:
        while data := source.recv(65536):
            if change and passed <= offset < passed + len(data):
                data = bytearray(data)
                data[offset - passed] ^= 1
            passed += len(data)
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


threads = [
    threading.Thread(target=forward, args=(near, far, way == "up")),
    threading.Thread(target=forward, args=(far, near, way == "down")),
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

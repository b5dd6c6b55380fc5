"""A name server that knows nothing: dns_sink.py PORT. Says when it listens; answers every question over UDP with
"no such name"."""
import socket
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    question, who = server.recvfrom(4096)
    # The question again, less what follows it (EDNS), with QR and RCODE 3 (RFC 1035, 4.1.1).
    end = 12
    while question[end]:
        end += 1 + question[end]
    answer = question[:2] + b"\x81\x83\x00\x01\x00\x00\x00\x00\x00\x00" + question[12:end + 5]
    server.sendto(answer, who)

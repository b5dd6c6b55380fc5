"""A relay that takes messages with a text out of what an MQTT broker sends: mqtt_swallow.py PORT BROKER_PORT TEXT.

It acknowledges them to the broker, so that the broker is content."""
import socket
import sys
import threading

port, broker, text = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()


def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


def exactly(source, count):
    data = b""
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def packets(source):
    """Whole packets: their first byte, their bytes, their body."""
    while True:
        head = exactly(source, 1)
        length, shift = 0, 0
        while True:
            byte = exactly(source, 1)
            head += byte
            length |= (byte[0] & 127) << shift
            shift += 7
            if byte[0] < 128:
                break
        body = exactly(source, length)
        yield head[0], head + body, body


def serve(client):
    server = socket.create_connection(("127.0.0.1", broker))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    try:
        for first, packet, body in packets(server):
            if first >> 4 == 3 and text in body:
                if first & 6:
                    topic = int.from_bytes(body[:2], "big")
                    server.sendall(b"\x40\x02" + body[2 + topic : 4 + topic])
                continue
            client.sendall(packet)
    except (EOFError, OSError):
        client.close()


listener = socket.create_server(("127.0.0.1", port))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

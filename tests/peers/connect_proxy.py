"""A proxy that answers CONNECT and then ends TLS itself, as those that look into it do: connect_proxy.py PORT [DEED].

For one connection. TLS goes through memory BIOs on both sides (asyncio), and begins behind what was said in the clear.
DEED is flip:N, of what the client sends. Needs cert.pem and key.pem in the working directory.
"""
import asyncio
import ssl
import sys

port, deeds = int(sys.argv[1]), sys.argv[2:]
flip = int(deeds[0].split(":")[1]) if deeds else None


async def pump(reader, writer, place=None):
    at = 0
    while data := await reader.read(65536):
        if place is not None and at <= place < at + len(data):
            data = bytearray(data)
            data[place - at] ^= 1
        at += len(data)
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    host, _, far = head.split()[1].decode().partition(":")
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await writer.drain()
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain("cert.pem", "key.pem")
    await writer.start_tls(own)
    there = await asyncio.open_connection("127.0.0.1", int(far), ssl=ssl._create_unverified_context(), server_hostname=host)
    await asyncio.gather(pump(reader, there[1], flip), pump(there[0], writer))
    done.set()


async def main():
    global done
    done = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await done.wait()
    server.close()

asyncio.run(main())

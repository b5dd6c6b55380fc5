"""TLS by asyncio, which drives libssl through memory BIOs.

asyncio_tls.py server PORT CERTIFICATE KEY   takes one connection, answers what came, upper case
asyncio_tls.py client PORT CERTIFICATE FILE  sends a file, says whether the answer is right
"""
import asyncio
import ssl
import sys


async def server(port, certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    done = asyncio.Event()

    async def serve(reader, writer):
        length = int.from_bytes(await reader.readexactly(8), "big")
        data = await reader.readexactly(length)
        writer.write(data.upper())
        await writer.drain()
        # The client closes first, so that its TLS shutdown is an orderly one.
        await reader.read()
        writer.close()
        done.set()

    async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=context):
        await done.wait()


async def client(port, certificate, path):
    context = ssl.create_default_context(cafile=certificate)
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    with open(path, "rb") as f:
        data = f.read()
    writer.write(len(data).to_bytes(8, "big"))
    for at in range(0, len(data), 50_000):
        writer.write(data[at:at + 50_000])
        await writer.drain()
    answer = await reader.readexactly(len(data))
    print("equal" if answer == data.upper() else "different")
    writer.close()
    await writer.wait_closed()


role, port, *rest = sys.argv[1:]
asyncio.run(globals()[role](int(port), *rest))

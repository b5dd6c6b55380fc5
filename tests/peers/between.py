"""One client's connection, and one to the server, for who stands between them."""
import socket
import ssl


def connections(kind_in, kind_out, listen_port, port):
    """Waits for a client on listen_port and connects to port; the kinds are tls or tcp. tls needs cert.pem and key.pem."""
    listener = socket.create_server(("127.0.0.1", listen_port))
    near, _ = listener.accept()
    listener.close()
    if kind_in == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("cert.pem", "key.pem")
        near = context.wrap_socket(near, server_side=True)
    far = socket.create_connection(("127.0.0.1", port))
    if kind_out == "tls":
        context = ssl.create_default_context(cafile="cert.pem")
        far = context.wrap_socket(far, server_hostname="localhost")
    return near, far

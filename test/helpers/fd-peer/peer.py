"""The other process of the tests, in Python: `python3 peer.py ROLE`, with the connection as descriptor 3.

Each role does what the role of the same name in peer.go does, with nothing but the standard library.
"""

import json
import os
import socket
import sys

connection = socket.socket(fileno=3)


def receive():
    """Says the data, and the text behind each descriptor."""
    data, fds, _flags, _address = socket.recv_fds(connection, 65536, 252)
    print(json.dumps({"data": data.decode(), "texts": [os.read(fd, 100).decode() for fd in fds]}))


def send():
    """Sends the reading ends of three pipes, with a text in each."""
    fds = []
    for text in ("one", "two", "three"):
        reading, writing = os.pipe()
        os.write(writing, text.encode())
        os.close(writing)
        fds.append(reading)
    socket.send_fds(connection, [b"from afar"], fds)


def listen():
    """Sends a listening socket and ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=700)
    socket.send_fds(connection, [b"take it"], [listener.fileno()])


def serve():
    """Receives a listener and answers one connection. O_NONBLOCK is shared with Node, so it waits with a timeout (poll)."""
    data, fds, _flags, _address = socket.recv_fds(connection, 65536, 1)
    header, _, rest = data.partition(b"\n")
    print(json.dumps({"name": json.loads(header)["name"], "data": rest.decode()}), flush=True)
    listener = socket.socket(fileno=fds[0])
    listener.settimeout(30)
    accepted, _address = listener.accept()
    accepted.sendall(b"another language")
    accepted.close()


{"receive": receive, "send": send, "listen": listen, "serve": serve}[sys.argv[1]]()

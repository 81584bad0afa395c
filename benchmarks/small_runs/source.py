"""A static source with keep-alive in a process of its own: one pre-rendered reply, whatever is asked.

Run as ``python -m benchmarks.small_runs.source``; prints its address and serves until its standard input ends. It shares the
machine with what is measured, and a platform does not: so it does no more than read and answer, without an event loop, and does
not cut in on whoever asks each time that a request wakes it (`SCHED_BATCH`).
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from contextlib import suppress
from email.utils import formatdate

BODY = b'{"data":[],"has_more":false}'
END = b"\r\n\r\n"


def reply(second: int) -> bytes:
    """Return the reply, its Date header of this second."""
    head = (
        f"HTTP/1.1 200 OK\r\nDate: {formatdate(second, usegmt=True)}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


class Static:
    """Answers each request of its connections; they have no body, and are small enough to come whole."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)
        self._poll.register(sys.stdin, select.EPOLLIN)
        self._connections: dict[int, socket.socket] = {}
        self._reply = (0, b"")

    def serve(self) -> None:
        """Serve until standard input ends."""
        while True:
            ready = self._poll.poll()
            second = int(time.time())
            if self._reply[0] != second:
                self._reply = (second, reply(second))
            for number, _ in ready:
                if number in self._connections:
                    self._answer(number)
                elif number == self._listener.fileno():
                    self._accept()
                elif not os.read(number, 4096):
                    return

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[connection.fileno()] = connection
        self._poll.register(connection, select.EPOLLIN)

    def _answer(self, number: int) -> None:
        connection = self._connections[number]
        with suppress(ConnectionError):
            if asked := connection.recv(65536):
                connection.sendall(self._reply[1] * asked.count(END))
                return
        del self._connections[number]
        connection.close()


def main() -> None:
    """Serve on a free port of the loopback until standard input ends."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        Static(listener).serve()


if __name__ == "__main__":
    main()

"""A static source with keep-alive in a process of its own: one pre-rendered reply, whatever is asked.

Run as ``python -m benchmarks.small_runs.source``; prints its address and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
import time
from email.utils import formatdate

BODY = b'{"data":[],"has_more":false}'


class Static(asyncio.Protocol):
    """Answers each request of a connection; requests of a benchmark client are small enough to come whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            _, _, self._pending = self._pending.partition(b"\r\n\r\n")
            assert isinstance(self._transport, asyncio.Transport)
            self._transport.write(reply())


_cached = (0, b"")


def reply() -> bytes:
    """Return the reply, its Date header of this second."""
    global _cached  # noqa: PLW0603 - one header a second, for all connections
    second = int(time.time())
    if _cached[0] != second:
        head = (
            f"HTTP/1.1 200 OK\r\nDate: {formatdate(second, usegmt=True)}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        )
        _cached = (second, head.encode() + BODY)
    return _cached[1]


async def main() -> None:
    """Serve on a free port of the loopback until standard input ends."""
    server = await asyncio.get_running_loop().create_server(Static, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())

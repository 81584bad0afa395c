"""A platform account behind a leaky bucket, in a process of its own: HTTP with keep-alive, 429 where the bucket is full.

Run as ``python -m benchmarks.shared_account.source RATE BURST PAGES``; prints its address and serves until its standard
input ends. Every tenant has PAGES pages of two orders; the tenant ``big`` has 1,000,000 orders in pages of 250. ``/_stats``
tells how many requests were served and refused in each tenth of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from collections import Counter
from email.utils import formatdate

BIG, BIG_RECORDS, BIG_PAGE, SMALL_PAGE = "big", 1_000_000, 250, 2
_ASKED = re.compile(rb"GET /([^/ ]+)/orders(?:\?[^ ]*?after=(\d+))?")


class Account:
    """The bucket: it leaks ``rate`` requests a second and holds ``burst``."""

    def __init__(self, rate: float, burst: int, pages: int) -> None:
        self._rate, self._burst, self._records = rate, burst, pages * SMALL_PAGE
        self._level, self._at = 0.0, time.monotonic()
        self.served: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()

    def answer(self, request: bytes) -> bytes:
        """Return the reply to one request's head."""
        if request.startswith(b"GET /_stats"):
            return self._reply(200, json.dumps({"served": self.served, "refused": self.refused}).encode())
        now = time.monotonic()
        self._level = max(0.0, self._level - (now - self._at) * self._rate)
        self._at = now
        tenth = int(time.time() * 10)
        if self._level + 1 > self._burst:
            self.refused[tenth] += 1
            return self._reply(429, b"{}", b"Retry-After: 1\r\n")
        self._level += 1
        self.served[tenth] += 1
        return self._reply(200, self._page(request))

    def _page(self, request: bytes) -> bytes:
        asked = _ASKED.match(request)
        assert asked is not None, request
        big = asked[1] == BIG.encode()
        size, count = (BIG_PAGE, BIG_RECORDS) if big else (SMALL_PAGE, self._records)
        first = int(asked[2] or 0) + 1
        last = min(first + size - 1, count)
        records = b",".join(b'{"id":%d,"name":"order %d"}' % (number, number) for number in range(first, last + 1))
        return b'{"data":[%s],"has_more":%s}' % (records, b"true" if last < count else b"false")

    def _reply(self, status: int, body: bytes, extra: bytes = b"") -> bytes:
        return (
            b"HTTP/1.1 %d X\r\nDate: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
            % (status, formatdate(time.time(), usegmt=True).encode(), extra, len(body))
        ) + body


class Connection(asyncio.Protocol):
    """Answers each request of a connection in turn."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            head, _, self._pending = self._pending.partition(b"\r\n\r\n")
            assert isinstance(self._transport, asyncio.Transport)
            self._transport.write(self._account.answer(head))


async def main(rate: float, burst: int, pages: int) -> None:
    """Serve on a free port of the loopback until standard input ends."""
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # a platform is not on our machine: its bucket should not stand still because we are busy
    account = Account(rate, burst, pages)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(account), "127.0.0.1", 0, backlog=1000)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

"""The source: a small HTTP server in its own process that answers `GET /orders?page=N` with pre-rendered bytes.

Run as `python -m benchmarks.throughput.source COUNT`; prints its base URL, then serves until its standard input closes.
A reply is `{"orders": [...], "next_page": N | null}`; a page past the last is an empty list. Under the path `/later` the same
records are shown as they are after an edit a year later.
"""

from __future__ import annotations

import asyncio
import re
import sys

from benchmarks.throughput import records

_PAGE = re.compile(rb"^GET (/later)?/orders\?(?:[^ ]*&)?page=(\d+)[ &]")


def replies(arrays: list[bytes]) -> list[bytes]:
    """Return the whole HTTP reply of every page, headers included, and last that of a page past the end."""
    bodies = []
    for number, array in enumerate(arrays, start=1):
        following = str(number + 1).encode() if number < len(arrays) else b"null"
        bodies.append(b'{"orders": ' + array + b', "next_page": ' + following + b"}")
    bodies.append(b'{"orders": [], "next_page": null}')
    return [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for body in bodies
    ]


async def serve(count: int) -> None:
    """Serve until standard input closes."""
    now, later = replies(records.pages(count)), replies(records.pages(count, edited=True))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                match = _PAGE.match(head)
                number = int(match[2]) if match else 1
                rendered = later if match and match[1] else now
                writer.write(rendered[min(number, len(rendered)) - 1])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

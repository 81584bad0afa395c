"""A shop with an HTTP interface, in a process of its own that can be killed; what it knows is in a file.

Two streams, three records a page, keyset paging: `orders` (edited, by `updated_at`) and `events` (never edited, by
`created_at`). It tells its time in the Date header.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.crash.child import FORKED, Offset

PAGE_SIZE = 3
LOOKBACK = timedelta(minutes=30)
CURSORS = {"orders": "updated_at", "events": "created_at"}
DECLARATION = f"""
name: crash
base_url: '{{settings.url}}'
settings: {{url: null}}
streams:
  orders:
    path: /orders
    records: records
    key: [id]
    cursor: {{field: updated_at, ascending: true}}
    lookback_seconds: {LOOKBACK.seconds}
    lower: {{param: since, meaning: inclusive}}
    pager: {{type: cursor, param: after, token: next}}
  events:
    path: /events
    records: records
    key: [id]
    cursor: {{field: created_at, changes: false, ascending: true}}
    lookback_seconds: {LOOKBACK.seconds}
    lower: {{param: since, meaning: inclusive}}
    upper: {{param: until, meaning: exclusive}}
    pager: {{type: cursor, param: after, token: next}}
"""
Record = dict[str, Any]


@dataclass
class Shop:
    """What the shop knows, kept in ``file``; and every version of a record that there has been."""

    file: Path
    records: dict[str, list[Record]] = field(default_factory=lambda: {"orders": [], "events": []})
    versions: set[tuple[str, int, datetime, int]] = field(default_factory=set)
    poison: int = 0

    def trade(self, start: datetime, end: datetime) -> None:
        """A period's business: new orders and events, edits of old orders, and one order that has no id."""
        orders, events = self.records["orders"], self.records["events"]
        moments = _spread(start, end, 11)
        for old in [order for order in orders if "id" in order][-5::2]:
            self._put(orders, old["id"], next(moments), old["rev"] + 1)
        for _ in range(4):
            self._put(orders, sum("id" in order for order in orders) + 1, next(moments), 1)
        self.poison += 1
        orders.append({"updated_at": _iso(end - timedelta(minutes=5)), "poison": self.poison})
        for _ in range(4):
            self._put(events, len(events) + 1, next(moments), 1)
        draft = self.file.with_suffix(".new")
        draft.write_text(json.dumps(self.records))
        draft.replace(self.file)

    def _put(self, records: list[Record], number: int, at: datetime, revision: int) -> None:
        stream = "orders" if records is self.records["orders"] else "events"
        records[:] = [record for record in records if record.get("id") != number]
        records.append({"id": number, CURSORS[stream]: _iso(at), "rev": revision, "note": f"{stream} {number}"})
        self.versions.add((stream, number, at, revision))

    def shows(self, stream: str, start: datetime, end: datetime, begin: datetime) -> int:
        """Return how many records a run of ``[start, end)`` reads; the coverage begins at ``begin``."""
        lower = max(start - LOOKBACK, begin)
        stamps = [datetime.fromisoformat(record[CURSORS[stream]]) for record in self.records[stream]]
        return sum(lower <= at and (stream == "orders" or at < end) for at in stamps)


def _spread(start: datetime, end: datetime, count: int) -> Iterator[datetime]:
    step = (end - start) / (count + 1)
    return ((start + step * (number + 1)).replace(microsecond=0) for number in range(count))


def _iso(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


class SourceProcess:
    """The shop's server; `kill` and `start` again at the same address."""

    def __init__(self, file: Path, offset: Offset) -> None:
        self._file = file
        self._offset = offset
        self._delay: Offset = FORKED.Value("d", 0.0, lock=False)
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it; returns once it answers."""
        self._pipe, far = FORKED.Pipe()
        self._process = FORKED.Process(
            target=_main, args=(self._file, self._offset, self._delay, self._port, far), daemon=True
        )
        self._process.start()
        far.close()
        self._port = self._pipe.recv()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()

    def slow_down(self, delay: timedelta) -> None:
        """Let every page take so long."""
        self._delay.value = delay.total_seconds()

    def hold(self) -> None:
        """Let it answer nothing for a while; its connections stay open."""
        self._send(signal.SIGSTOP)

    def release(self) -> None:
        """Let it answer again."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def _main(file: Path, offset: Offset, delay: Offset, port: int, pipe: Any) -> None:
    asyncio.run(_serve(file, offset, delay, port, pipe))


async def _serve(file: Path, offset: Offset, delay: Offset, port: int, pipe: Any) -> None:
    async def listing(request: web.Request) -> web.Response:
        await asyncio.sleep(delay.value)
        stream = request.match_info["stream"]
        cursor = CURSORS[stream]
        since, until = request.query.get("since", ""), request.query.get("until", "~")
        after = json.loads(request.query.get("after", '["", 0]'))
        rows = sorted(json.loads(file.read_text())[stream], key=lambda row: _position(row, cursor))
        rest = [row for row in rows if since <= row[cursor] < until and _position(row, cursor) > after]
        page, more = rest[:PAGE_SIZE], len(rest) > PAGE_SIZE
        token = json.dumps(_position(page[-1], cursor)) if more else None
        date = formatdate(time.time() + offset.value, usegmt=True)
        return web.json_response({"records": page, "next": token}, headers={"Date": date})

    app = web.Application()
    app.router.add_get("/{stream}", listing)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    pipe.send(runner.addresses[0][1])
    orphaned = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), orphaned.set)  # readable at its end: the harness is gone
    await orphaned.wait()


def _position(row: Record, cursor: str) -> list[Any]:
    return [row[cursor], row.get("id", 0)]

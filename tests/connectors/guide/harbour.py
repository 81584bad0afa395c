"""Harbour, the platform of the guide: `python -m tests.connectors.guide.harbour` serves it on 127.0.0.1:8123.

Its documentation stands in docs/guides/write-a-connector.md; where it is silent there, it behaves as such platforms do: orders
that are done are hidden unless asked for, unknown parameters are ignored, the newest come first.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qsl, urlsplit

TOKEN = "harbour-token-0123456789"
PORT = 8123


@dataclass
class Harbour:
    """250 orders of the last ten days, every third one done."""

    orders: dict[int, dict[str, object]] = field(default_factory=dict)
    edit_while_listing: bool = False
    requests: int = 0

    @classmethod
    def of_today(cls, now: datetime) -> Harbour:
        made = cls()
        for number in range(1, 251):
            edited = now - timedelta(hours=number, milliseconds=7 * number)
            made.orders[number] = {
                "id": f"ord_{number:04}",
                "status": "done" if number % 3 == 0 else "open",
                "total": f"{number}.50",
                "created_at": _text(edited - timedelta(days=number % 5)),
                "updated_at": _text(edited),
            }
        return made

    def reply(self, path: str, query: dict[str, str], token: str) -> tuple[int, object]:
        self.requests += 1
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "unauthorized"}
        if path != "/v1/orders":
            return 404, {"error": "not found"}
        by = {"updated": "updated_at", "created": "created_at"}[query.get("sort", "created")]
        found = [
            order
            for order in self.orders.values()
            if query.get("status", "open") in ("any", order["status"])
            and _at(order["updated_at"]) >= _at(query.get("updated_since", "1970-01-01T00:00:00Z"))
        ]
        found.sort(key=lambda order: (str(order[by]), str(order["id"])), reverse=query.get("direction") != "asc")
        size, page = min(int(query.get("per_page", 20)), 50), int(query.get("page", 1))
        shown = found[(page - 1) * size : page * size]
        answer = {"orders": [dict(order) for order in shown], "page": page, "pages": -(-len(found) // size)}
        if self.edit_while_listing and shown:
            self._edit(str(shown[0]["id"]))
        return 200, answer

    def _edit(self, order_id: str) -> None:
        newest = max(_at(order["updated_at"]) for order in self.orders.values())
        order = next(order for order in self.orders.values() if order["id"] == order_id)
        order["updated_at"] = _text(newest + timedelta(seconds=1))


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _at(text: object) -> datetime:
    return datetime.fromisoformat(str(text))


@contextmanager
def serving(harbour: Harbour, port: int = 0) -> Iterator[str]:
    """Serve ``harbour`` on loopback; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, document = harbour.reply(
                parts.path, dict(parse_qsl(parts.query)), self.headers["Authorization"] or ""
            )
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_given: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Serve until interrupted."""
    stopped = Event()
    signal.signal(signal.SIGINT, lambda *_given: stopped.set())
    signal.signal(signal.SIGTERM, lambda *_given: stopped.set())
    with serving(Harbour.of_today(datetime.now(UTC)), PORT) as url:
        print(f"Harbour listens at {url}; its token is {TOKEN}. Stop it with Control-C.", flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()

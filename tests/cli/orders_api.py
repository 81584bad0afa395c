"""A small platform on localhost: orders with `updated_at`, listed by cursor, behind a bearer token."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

CONNECTOR = """
name: shop
base_url: "{settings.base_url}"
settings: {base_url: null}
authentication: {type: bearer, token: "{secrets.token}"}
streams:
  orders:
    path: /orders
    records: orders
    cursor: {field: updated_at, ascending: true}
    lower: {param: updated_since, meaning: inclusive}
    pager: {type: cursor, param: after, token: next}
  customers:
    path: /customers
    records: customers
    cursor: {field: updated_at, ascending: true}
    lower: {param: updated_since, meaning: inclusive}
    pager: {type: cursor, param: after, token: next}
"""
PAGE = 20


@dataclass
class OrdersApi:
    """What the platform shows, and how it behaves."""

    url: str = ""
    count: int = 45
    status: int = 200
    failing: str = ""
    """A path that answers 404."""
    gate: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    tokens: set[str] = field(default_factory=set)

    def reply(self, query: dict[str, str]) -> dict[str, object]:
        since, after = query.get("updated_since", ""), int(query.get("after", 0))
        rows = [
            {"id": n, "updated_at": f"2026-05-{1 + n // 24:02}T{n % 24:02}:00:00Z"} for n in range(1, self.count + 1)
        ]
        rows = [row for row in rows if str(row["updated_at"]) >= since]
        page = rows[after : after + PAGE]
        return {"orders": page, "customers": page, "next": str(after + PAGE) if after + PAGE < len(rows) else None}


@contextmanager
def serving(api: OrdersApi) -> Iterator[OrdersApi]:
    """Serve ``api`` on a free port; its gate is open unless cleared."""
    api.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.tokens.add(self.headers.get("Authorization", ""))
            api.asked.set()
            api.gate.wait(30)
            body = json.dumps(api.reply(dict(parse_qsl(urlsplit(self.path).query)))).encode()
            self.send_response(404 if urlsplit(self.path).path == api.failing else api.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that went away is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        api.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()

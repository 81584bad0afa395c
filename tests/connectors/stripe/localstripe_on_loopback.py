"""Runs the real localstripe on a free loopback port, which it prints. Its own command listens on all interfaces.

Nothing is kept on disk, and the clock that stamps ``created`` is set by POST /_config/clock?seconds=N instead of
running: tests do not wait for the next second.
"""

from __future__ import annotations

import socket
import sys
import types

from aiohttp import web
from localstripe import resources  # type: ignore[import-untyped]
from localstripe.server import app  # type: ignore[import-untyped]

SECONDS = [1_783_958_400]  # 2026-07-13T16:00:00Z


async def set_clock(request: web.Request) -> web.Response:
    """Set the instant of all that is created from now on."""
    SECONDS[0] = int(request.query["seconds"])
    return web.Response()


def main() -> None:
    """Serve until killed."""
    resources.Store.dump_to_disk = lambda self: None
    resources.time = types.SimpleNamespace(time=lambda: SECONDS[0])
    resources.schedule_webhook = lambda event: None
    app.router.add_post("/_config/clock", set_clock)
    listening = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    web.run_app(app, sock=listening, print=None, access_log=None)


if __name__ == "__main__":
    main()

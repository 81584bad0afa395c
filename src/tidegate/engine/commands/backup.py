"""Backup and restore of the embedded server, and its stop (docs/guides/backup.md). An external one has its own tools."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tidegate.domain.errors import InvalidInput
from tidegate.store.embedded import FOLDER, EmbeddedServer, is_running

KEY = "key"
RESTORING = "restoring"
"""Where in the data directory a restore works until it is complete."""


def back_up(data_dir: Path, file: Path, *, key_to: Path | None = None, key_elsewhere: bool = False) -> int:
    """Write the embedded database as it is at this instant into ``file``; return its size in bytes.

    Whoever works meanwhile goes on. The file appears whole or not at all, readable by its owner only. The secrets in it
    are sealed, and the key is not in it; ``key_to``: where to copy the key file of the data directory. ``key_elsewhere``:
    this process has its key from elsewhere, and what such a file holds opens nothing. Raises InvalidInput if there is no
    database, no key file to copy, or a file is in the way.
    """
    if not (data_dir / FOLDER / "PG_VERSION").exists():
        raise InvalidInput("data_dir", str(data_dir), "holds no database", "Set TIDEGATE_DATA_DIR to where it is.")
    _require_free(file)
    if key_to is not None:
        _require_free(key_to)
        if key_elsewhere or not (data_dir / KEY).exists():
            problem = "does not count, for TIDEGATE_KEY is set" if key_elsewhere else "does not exist"
            raise InvalidInput("with_key", str(data_dir / KEY), problem, "The key is TIDEGATE_KEY: keep that.")
    draft = file.with_name(f"{file.name}.partial")
    _create_private(draft)
    try:
        server = EmbeddedServer(data_dir)
        try:
            server.dump(draft)
        finally:
            server.release()
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    if key_to is not None:
        _copy_key(data_dir / KEY, key_to)
    return file.stat().st_size


def restore(data_dir: Path, file: Path, *, key_from: Path | None = None) -> None:
    """Make a data directory with the database that `back_up` wrote into ``file``, and with the key of ``key_from``.

    A directory that holds anything but a key is refused. All or nothing: what fails leaves the directory as it was.
    Raises InvalidInput.
    """
    for needed in (file, *([key_from] if key_from else [])):
        if not needed.is_file():
            raise InvalidInput("file", str(needed), "does not exist", "Give what `tidegate backup` wrote.")
    there = {entry.name for entry in data_dir.iterdir()} if data_dir.is_dir() else set()
    if there - ({KEY} if key_from is None else set()):
        problem = f"is not empty: it holds {', '.join(sorted(there)[:5])}"
        raise InvalidInput("data_dir", str(data_dir), problem, "Restore into a new directory: set TIDEGATE_DATA_DIR.")
    work = data_dir / RESTORING
    try:
        server = EmbeddedServer(work)
        try:
            server.load(file)
        finally:
            server.release()
        if key_from is not None:
            _copy_key(key_from, data_dir / KEY)
        os.rename(work / FOLDER, data_dir / FOLDER)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def stop(data_dir: Path) -> bool:
    """Stop an embedded server that nobody uses, which killed processes leave behind; return whether one was running.

    Raises InvalidInput naming the processes that use it.
    """
    if not is_running(data_dir):
        return False
    server = EmbeddedServer(data_dir)
    users = server.others()
    server.release()
    if users:
        named = ", ".join(str(pid) for pid in users)
        raise InvalidInput("data_dir", str(data_dir), f"is in use by process {named}", "End it first (SIGTERM).")
    return True


def _require_free(file: Path) -> None:
    if file.exists():
        raise InvalidInput("file", str(file), "exists", "Give a name that is free: no backup is overwritten.")
    if not file.absolute().parent.is_dir():
        raise InvalidInput("file", str(file), "is in no directory that exists", "Make the directory first.")


def _create_private(file: Path) -> None:
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise InvalidInput("file", str(file), problem, "Give a name in a directory of yours.") from None


def _copy_key(key: Path, to: Path) -> None:
    _create_private(to)
    to.write_bytes(key.read_bytes())

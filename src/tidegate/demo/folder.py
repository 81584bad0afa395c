"""The demo's folder: only what a demo has made is ever removed, and only while nothing runs in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tidegate.domain.errors import InvalidInput
from tidegate.store.embedded import is_running

MARKER = ".tidegate-demo"
"""The file that says that a folder is a demo's: written before anything else, and the last to stay."""
_ELSEWHERE = "Name a folder that does not exist yet, or an empty one."


def fresh(folder: Path) -> None:
    """Make ``folder`` an empty demo's folder: it is made, or emptied if a demo has made it.

    Raises InvalidInput, and has removed nothing, if it holds anything else, or if its database is running.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = list(folder.iterdir())
    except OSError as error:
        raise InvalidInput("--data-dir", str(folder), f"cannot be used ({error.strerror})", _ELSEWHERE) from None
    if there and not (folder / MARKER).is_file():
        raise InvalidInput("--data-dir", str(folder), "is not empty, and no demo has made it", _ELSEWHERE)
    if is_running(folder):
        remedy = f"End what runs there, then `TIDEGATE_DATA_DIR={folder} tidegate stop`; or name another folder."
        raise InvalidInput("--data-dir", str(folder), "has a database that is running", remedy)
    try:
        (folder / MARKER).write_text("A demo of Tidegate made this folder; the next one empties it.\n", "utf-8")
        for each in there:
            _remove(each)
    except OSError as error:
        raise InvalidInput("--data-dir", str(folder), f"cannot be emptied ({error.strerror})", _ELSEWHERE) from None


def _remove(each: Path) -> None:
    if each.name == MARKER:
        return
    if each.is_dir() and not each.is_symlink():
        shutil.rmtree(each)
    else:
        each.unlink()

"""CPU seconds of processes, from /proc: on a shared machine they say more than time does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def seconds_of(chosen: Callable[[int, int], bool]) -> float:
    """Return the CPU seconds used so far by the live processes (pid, parent's pid) that are ``chosen``."""
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if chosen(int(entry.name), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def server_seconds(data_dir: Path) -> float:
    """Return the CPU seconds of the embedded server of ``data_dir``, its live backends included."""
    postmaster = int((data_dir / "postgresql" / "postmaster.pid").read_text().split()[0])
    return seconds_of(lambda pid, parent: postmaster in (pid, parent))


def children_seconds() -> float:
    """Return the CPU seconds of this process's live children but the embedded servers, which are their own parents."""
    me = os.getpid()
    return seconds_of(lambda _pid, parent: parent == me)

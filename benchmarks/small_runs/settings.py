"""The settings of every worker of the benchmark."""

from __future__ import annotations

from pathlib import Path

from tidegate.bootstrap import Options
from tidegate.engine.settings import Settings

QUEUE_DEPTH = 4000


def options(data_dir: Path, queue_depth: int = QUEUE_DEPTH) -> Options:
    """Return the options of a process whose embedded server is in ``data_dir``."""
    settings = Settings(slots=256, queue_depth=queue_depth)
    return Options(data_dir=data_dir, allow_private_addresses=True, settings=settings)

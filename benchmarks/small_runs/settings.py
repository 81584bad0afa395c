"""The settings of every worker of the benchmark."""

from __future__ import annotations

from pathlib import Path

from tidegate.bootstrap import Options
from tidegate.engine.settings import Settings


def options(data_dir: Path) -> Options:
    """Return the options of a process whose embedded server is in ``data_dir``."""
    settings = Settings(slots=256, queue_depth=4000)
    return Options(data_dir=data_dir, allow_private_addresses=True, settings=settings)

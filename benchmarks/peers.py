"""The peers' own Python environments, made at first use: nothing of theirs is among Tidegate's dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
DLT = ("dlt[duckdb,postgres]==1.31.0", "requests")
SINGER = ("singer-sdk==0.54.9", "meltanolabs-target-postgres==0.8.1")


def environment(name: str, packages: Sequence[str]) -> Path:
    """Return the folder of programs of an environment that has ``packages``, made at first use under `.cache/peers`."""
    folder = ROOT / ".cache" / "peers" / name
    ready, wanted = folder / ".ready", "\n".join(packages)
    if not ready.exists() or ready.read_text() != wanted:
        print(f"Installing {' '.join(packages)} (once) …", file=sys.stderr)
        own = ROOT / ".venv" / "bin" / "uv"
        uv = str(own) if own.exists() else "uv"
        calm = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True, env=calm)
        python = str(folder / "bin" / "python")
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True, env=calm)
        ready.write_text(wanted)
    return folder / "bin"

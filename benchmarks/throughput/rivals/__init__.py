"""The rivals: their scripts, and the environments of their own that these run in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
DLT = ("dlt[postgres]==1.31.0",)
SINGER = ("singer-sdk==0.54.9", "meltanolabs-target-postgres==0.8.1")


def environment(name: str, packages: Sequence[str]) -> Path:
    """Return the folder of programs of an environment that has ``packages``, made at first use under `.cache/`."""
    folder = ROOT / ".cache" / "rivals" / name
    ready, wanted = folder / ".ready", "\n".join(packages)
    if not ready.exists() or ready.read_text() != wanted:
        print(f"Installing {wanted!r} (once) …", file=sys.stderr)
        calm = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
        subprocess.run(["uv", "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True, env=calm)
        python = str(folder / "bin" / "python")
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, *packages], check=True, env=calm)
        ready.write_text(wanted)
    return folder / "bin"

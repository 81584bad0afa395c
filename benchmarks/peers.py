"""The peers' own Python environment, made at first use: nothing of theirs is among Tidegate's dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".cache" / "peers"
PACKAGES = ("dlt[duckdb,postgres]==1.31.0", "requests")


def peer_python() -> str:
    """Return the path of the peers' Python, installing the peers if they are not there yet."""
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / ".ready"
    wanted = "\n".join(PACKAGES)
    if not ready.exists() or ready.read_text() != wanted:
        print("Installing the peers (once) …", file=sys.stderr)
        uv = ROOT / ".venv" / "bin" / "uv"
        command = str(uv) if uv.exists() else "uv"
        environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
        subprocess.run(
            [command, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
            check=True,
            env=environment,
        )
        subprocess.run(
            [command, "pip", "install", "--quiet", "--python", str(python), *PACKAGES], check=True, env=environment
        )
        ready.write_text(wanted)
    return str(python)

"""The calendar beside cronsim, croniter, APScheduler, Dagster and dateutil, in one process and one run.

    python -m benchmarks.calendar [--rounds 5] [--only speed|answers]

The peers live in an environment of their own (`.cache/peers/calendar`, made at first use); this process installs it and
hands over to its Python, where Tidegate's calendar runs from the source tree. All read the same zone data, those of the
pinned `tzdata` package. Never part of CI: the figures depend on the machine and on what else it does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

from benchmarks import peers

PEERS = (
    "apscheduler==3.11.3",
    "croniter==7.0.0",
    "cronsim==2.8",
    "dagster==1.13.29",
    "python-dateutil==4.0.0",
    "whenever==0.11.0",
    f"tzdata=={metadata.version('tzdata')}",
)


def main() -> int:
    """Run the comparison in the peers' environment and return its exit code."""
    environment = {**os.environ, "PYTHONPATH": f"{peers.ROOT / 'src'}{os.pathsep}{peers.ROOT}", "PYTHONTZPATH": ""}
    command = [
        str(peers.environment("calendar", PEERS) / "python"),
        "-W",
        "ignore",
        "-m",
        "benchmarks.calendar.compare",
        *sys.argv[1:],
    ]
    return subprocess.run(command, cwd=peers.ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""All tests, in two halves side by side: `python -m tests`. A machine with two cores needs about half the time for them.

The first half is shown as it goes, the second when it is done. Coverage is of both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

FIRST = ("cli", "connectors", "crash", "demo", "loss", "upgrade")
"""Folders of the first half; everything else is the second."""


def main() -> int:
    """Run both halves, and return 0 if all is well."""
    tests = Path(__file__).parent
    rest = [name.name for name in sorted(tests.iterdir()) if any(name.glob("**/test_*.py")) and name.name not in FIRST]
    first = [name for name in FIRST if any((tests / name).glob("**/test_*.py"))]
    with tempfile.TemporaryFile() as told:
        second = subprocess.Popen(_command(rest), stdout=told, stderr=subprocess.STDOUT, env=_environment("second"))
        codes = [subprocess.run(_command(first), check=False, env=_environment("first")).returncode, second.wait()]
        told.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(told.read())
        sys.stdout.flush()
    return max(map(abs, codes)) or _covered()


def _command(folders: list[str]) -> list[str]:
    paths = [f"tests/{folder}" for folder in folders]
    return [sys.executable, "-m", "pytest", "--cov", "--cov-report=", "--cov-fail-under=0", *paths]


def _environment(half: str) -> dict[str, str]:
    return {**os.environ, "COVERAGE_FILE": f".coverage.{half}"}


def _covered() -> int:
    """Put the coverage of both together; return 0 if it is enough."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--quiet", ".coverage.first", ".coverage.second"], check=True)
    return subprocess.run([*coverage, "report", "--skip-covered"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

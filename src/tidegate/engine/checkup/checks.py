"""A check of `tidegate doctor`, and those of this machine, which need no database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path

from tidegate.domain.zone_data import read_zone, zone_names

ZONE_DATA_AGE_YEARS = 1
SYSTEM_ZONES = Path("/usr/share/zoneinfo/tzdata.zi")
"""Where systems say which release of the zone data they have, in its first line."""
LEAST_FREE_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found and, if it is not well, a stable ``code`` and the remedy."""

    name: str
    ok: bool
    finding: str
    remedy: str = ""
    code: str = ""


def well(name: str, finding: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name, True, finding)


def wrong(name: str, code: str, finding: str, remedy: str) -> Check:
    """Return a check that found something wrong; docs/reference/doctor.md lists the codes."""
    return Check(name, False, finding, remedy, code)


def check_machine(
    data_dir: Path, now: datetime, *, least_free_bytes: int = LEAST_FREE_BYTES, system_zones: Path = SYSTEM_ZONES
) -> Iterator[Check]:
    """Yield the checks of the data directory, the key's file and the zone data."""
    yield _disk(data_dir, least_free_bytes)
    key = data_dir / "key"
    mode = key.stat().st_mode & 0o777 if key.exists() else 0o600
    if mode & 0o077:
        yield wrong("key file", "key_file_exposed", f"{key} may be read by others ({mode:o})", f"chmod 600 {key}")
    yield _zone_data(now, system_zones)


def _disk(data_dir: Path, least_free_bytes: int) -> Check:
    there = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    finding = f"{free / 1024**3:.1f} GiB are free for {data_dir}"
    if free < least_free_bytes:
        return wrong("disk", "disk_low", finding, "Make room: a full disk stops the embedded database.")
    return well("disk", finding)


def _zone_data(now: datetime, system_zones: Path) -> Check:
    version = metadata.version("tzdata")
    upgrade = "Upgrade the package tzdata: zones change their rules."
    for name in ("Europe/London", "Pacific/Apia"):
        if name not in zone_names() or not read_zone(name).transitions:
            finding = f"tzdata {version} lacks {name}"
            return wrong("time zones", "zone_data_missing", finding, "Install the package tzdata anew.")
    if int(version.split(".")[0]) < now.year - ZONE_DATA_AGE_YEARS:
        return wrong("time zones", "zone_data_old", f"tzdata {version} is old", upgrade)
    system = _release(system_zones)
    if system > _release_of(version):
        finding = f"tzdata {version} is older than this system's {system}, and it is what Tidegate goes by"
        return wrong("time zones", "zone_data_behind_system", finding, upgrade)
    return well("time zones", f"tzdata {version}, {len(zone_names())} zones")


def _release_of(version: str) -> str:
    """Return the release of the zone database in a package's version: 2026.1 is 2026a."""
    year, _, number = version.partition(".")
    return f"{year}{chr(ord('a') + int(number.split('.')[0]) - 1)}"


def _release(system_zones: Path) -> str:
    """Return the release that the system's file names, "" if there is none or it does not say."""
    try:
        with system_zones.open(encoding="utf-8") as lines:
            first = lines.readline().split()
    except OSError:
        return ""
    return first[-1] if first[:2] == ["#", "version"] else ""

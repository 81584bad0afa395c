"""The files destination: batches wait in the outbox until their run is complete, then they become one file at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final

from tidegate.destinations.base import DeliveryKey, Target
from tidegate.destinations.files.names import path_of
from tidegate.destinations.outbox import Handing, Outbox, OutboxWriter, message_id
from tidegate.destinations.postgres.load import Pool
from tidegate.destinations.records import Seen, entry
from tidegate.domain.clock import Clock
from tidegate.domain.errors import DestinationUnavailable, InvalidInput
from tidegate.domain.outgoing import Answer, Message, Route, Sending, Verdict

SETTINGS: Final = frozenset({"root"})
TRIED_BYTES: Final = 64 * 1024
"""How much room a look wants to find."""


def root_of(settings: Mapping[str, object]) -> Path:
    """Return the folder below which all files are made. Raises InvalidInput unless it is an absolute path."""
    root = settings.get("root")
    remedy = "Write the absolute path of a folder that every Tidegate process reaches, such as /var/lib/tidegate/files."
    if not isinstance(root, str) or not root:
        raise InvalidInput("settings.root", root, "is missing or no text", remedy)
    if not os.path.isabs(root) or ".." in Path(root).parts or Path(root) == Path("/") or "\x00" in root:
        raise InvalidInput("settings.root", root, "is not the absolute path of a folder", remedy)
    return Path(root)


class Files:
    """A destination below the folder ``root``. ``worker`` names this process among all: two never share a draft."""

    def __init__(self, root: Path, destination_id: int, pool: Pool, outbox: Outbox, clock: Clock, worker: str) -> None:
        self._root = root
        self._worker = worker.replace(":", "-").replace("/", "-")
        self._handing = Handing(
            pool=pool,
            outbox=outbox,
            clock=clock,
            destination_id=destination_id,
            whole_periods=True,
            render=_lines,
            refusal=lambda _seen: "",
        )

    def writer(self, target: Target, run_id: int, epoch: int) -> OutboxWriter:
        """Return the writer of one run; ``epoch`` is the ledger's affair here. Does no I/O."""
        return OutboxWriter(self._handing, target, run_id)

    async def close(self) -> None:
        """Do nothing: the pool is not ours."""

    @property
    def retry_for(self) -> timedelta | None:
        """Return None: a full disk is waited for as long as it takes."""
        return None

    async def reach(self) -> None:
        """Return if a file can be written where the root is, or will be made; none appears. Raises DestinationUnavailable."""
        there = next(folder for folder in (self._root, *self._root.parents) if folder.exists())
        try:
            await asyncio.to_thread(_try_out, there)
        except OSError as error:
            remedy = "Make room there, or let this user write there; files are tried again until they can be written."
            raise DestinationUnavailable(f"{there} takes no file: {error.strerror or error}", remedy=remedy) from error

    async def send(self, sending: Sending, now: datetime) -> Answer:
        """Write all batches to a draft, sync it to the disk and rename it into place; doing so again changes nothing."""
        place = self._root / path_of(sending)
        draft = place.with_name(f".{place.name}.{self._worker}.draft")
        try:
            await asyncio.to_thread(_prepare, self._root, place)
            with open(draft, "wb") as out:  # noqa: ASYNC230 – opening is quick; what is slow goes to a thread
                for batch in sending.batches:
                    await asyncio.to_thread(out.write, await sending.body(batch))
                await asyncio.to_thread(_synced, out)
            await asyncio.to_thread(_into_place, draft, place)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            return Answer(Verdict.AGAIN, detail=f"{place} could not be written: {error.strerror or error}.")
        return Answer(Verdict.ACKNOWLEDGED)


def _lines(target: Target, route: Route, key: DeliveryKey, records: Sequence[Seen]) -> list[Message]:
    body = b"".join(entry(seen) + b"\n" for seen in records)
    return [Message(message_id(route, key, 1, body), route.last_position + 1, 1, len(records), body)]


def _prepare(root: Path, place: Path) -> None:
    """Make the folders of ``place``, and remove the drafts that dead processes have left. Raises OSError.

    A link that leads out of the root is refused.
    """
    _make(root)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.parent.resolve().is_relative_to(root.resolve()):
        raise OSError(f"a link in {place.parent} leads out of {root}")
    for stale in place.parent.glob(f".{place.name}.*.draft"):
        stale.unlink(missing_ok=True)


def _try_out(folder: Path) -> None:
    """Write and sync a file that never has a name."""
    with TemporaryFile(dir=folder, buffering=0) as probe:
        probe.write(bytes(TRIED_BYTES))
        os.fsync(probe.fileno())


def _synced(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _into_place(draft: Path, place: Path) -> None:
    """Rename, and sync the folders, so that neither the file nor its name is lost with the power."""
    os.replace(draft, place)
    for folder in (place.parent, *place.parent.parents[:3]):
        _sync(folder)


def _make(folder: Path) -> None:
    """Make ``folder``, and those above it that are missing, and sync the name of each."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

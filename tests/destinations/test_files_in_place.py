"""A file is renamed into place, whole and on the disk, and no file ever takes another's place (SPEC 5 "Files")."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.simulated import SimulatedClock
from tidegate.destinations.files.files import Files
from tidegate.domain.outgoing import Sending, Verdict, Waiting
from tidegate.domain.period import Period
from tidegate.domain.run import Lane
from tidegate.store import outbox

NOW = datetime(2026, 7, 14, tzinfo=UTC)
PERIOD = Period(datetime(2026, 5, 1, tzinfo=UTC), NOW)
Read = Callable[[Waiting], Awaitable[bytes]]


async def body_of(batch: Waiting) -> bytes:
    """Return one line, which says whose it is."""
    return f'{{"of": "{batch.message_id}"}}\n'.encode()


def sending(ids: Sequence[str], read: Read = body_of, lane: Lane = Lane.LIVE) -> Sending:
    """Return so many batches of one period, positions from 1."""
    batches = tuple(Waiting(f"msg_{each * 8}", at, 1, NOW, 0) for at, each in enumerate(ids, start=1))
    return Sending("acme", "sync", "orders", lane, PERIOD, batches, read)


def send(root: Path, what: Sending, worker: str = "host:1") -> Verdict:
    files = Files(root, 1, None, outbox, SimulatedClock(NOW), worker)  # type: ignore[arg-type]
    return asyncio.run(files.send(what, NOW)).verdict


def there(root: Path) -> dict[str, str]:
    """Return what lies below ``root``, by name, and the ids in it."""
    return {path.name: path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def in_place(root: Path) -> dict[str, str]:
    return {name: text for name, text in there(root).items() if name.endswith(".jsonl")}


WHOLE = '{"of": "msg_aaaaaaaa"}\n{"of": "msg_bbbbbbbb"}\n'


def test_nothing_is_in_place_before_all_of_it_is_written(tmp_path: Path) -> None:
    """SPEC 5 "renamed into place": whoever looks into the folder meanwhile sees no file, and then a whole one."""
    seen: list[dict[str, str]] = []

    async def body(batch: Waiting) -> bytes:
        seen.append(in_place(tmp_path))
        assert [name for name in there(tmp_path) if name.endswith(".draft")], "it is being written somewhere"
        return await body_of(batch)

    assert send(tmp_path, sending("ab", body)) is Verdict.ACKNOWLEDGED
    assert seen == [{}, {}]
    assert list(there(tmp_path).values()) == [WHOLE]


@pytest.mark.parametrize("before", [False, True], ids=["first attempt", "after the rename"])
def test_dead_between_two_batches_no_half_file_is_in_place(before: bool, tmp_path: Path) -> None:
    """SPEC 5: what the dead process had put in place stays whole, and what it had begun is not there."""
    if before:
        send(tmp_path, sending("ab"), "dead:1")

    async def dying(batch: Waiting) -> bytes:
        if batch.position == 2:
            raise asyncio.CancelledError
        return await body_of(batch)

    with pytest.raises(asyncio.CancelledError):
        send(tmp_path, sending("ab", dying), "dead:2")
    assert list(in_place(tmp_path).values()) == [WHOLE] * before
    assert send(tmp_path, sending("ab")) is Verdict.ACKNOWLEDGED
    assert list(there(tmp_path).values()) == [WHOLE], "the draft of the dead is gone"


def test_a_file_and_its_name_are_on_the_disk_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 5: its content is synced before the rename, its folders after it: coverage outlives a power cut, so must it."""
    done: list[tuple[str, Any]] = []
    replace_, fsync = os.replace, os.fsync

    def synced(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append(("synced", path.read_text() if path.is_file() else path.relative_to(tmp_path)))
        fsync(descriptor)

    def renamed(draft: Path, place: Path) -> None:
        done.append(("renamed", place.parent.relative_to(tmp_path)))
        replace_(draft, place)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    root = tmp_path / "made" / "root"
    assert send(root, sending("ab")) is Verdict.ACKNOWLEDGED
    stream = Path("made/root/acme/sync/orders")
    name = done.index(("renamed", stream))
    assert ("synced", WHOLE) in done[:name], "the content, all of it, and before the rename"
    after = [what for kind, what in done[name:] if kind == "synced"]
    assert after == [stream, *stream.parents[:3]], "the new name, and those of its folders"
    for folder in ("made", "."):
        assert ("synced", Path(folder)) in done, "the root was made, and its folders"


def test_a_full_disk_at_the_last_moment_is_no_acknowledgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 5: what fsync refuses is not on the disk; it is tried again, and nothing is in place."""

    def refusing(_out: BinaryIO | int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refusing)
    assert send(tmp_path, sending("ab")) is Verdict.AGAIN
    assert there(tmp_path) == {}


def test_no_file_takes_the_place_of_another(tmp_path: Path) -> None:
    """SPEC 2.12, 5: the same period again is the same file; of another account, database or lane it is another one.

    Positions begin again with every chain: pointed at another platform account, a stream has period and position of before.
    """
    for _ in range(2):
        send(tmp_path, sending("ab"))
    assert list(there(tmp_path).values()) == [WHOLE]
    send(tmp_path, sending("xy"))
    send(tmp_path, sending("ab", lane=Lane.BACKFILL))
    send(tmp_path, replace(sending("pq"), period=Period(PERIOD.start, datetime(2026, 7, 15, tzinfo=UTC))))
    found = there(tmp_path)
    assert len(found) == 4
    assert sorted(found.values()).count(WHOLE) == 2
    assert sum("_backfill" in name for name in found) == 1

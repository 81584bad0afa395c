"""Files: one per period, in place at once, exactly once whatever dies or fills up meanwhile (SPEC 5)."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.destinations.webhook.world import Sending, in_sending
from tests.engine.doubles import ORDERS
from tidegate.destinations.files import names
from tidegate.destinations.files.files import root_of
from tidegate.domain.errors import InvalidInput, SourceUnavailable
from tidegate.engine.commands import backfilling
from tidegate.engine.commands.messages import replay
from tidegate.store.messages import Choice


def utc(day: int, hour: int = 0, minute: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


async def prepare(sending: Sending, root: Path, records: int = 6) -> int:
    sending.world.with_settings(batch_bytes=1)
    chain = await sending.install()
    await sending.configure("files", {"root": str(root)}, {})
    for number in range(1, records + 1):
        sending.world.shop.put(number, utc(13, 16, number), note="two\nlines")
    sending.world.clock.set(utc(14))
    return chain


def files(root: Path) -> dict[str, list[Any]]:
    """Return the ids in each file below ``root``, drafts included; names without the piece of a message's id."""
    return {
        re.sub(r"(_\d{12})_[0-9a-f]{8}", r"\1", str(path.relative_to(root))): [
            json.loads(line)["record"]["id"] for line in path.read_text().splitlines()
        ]
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


FIRST = "acme/sync/orders/20260501T000000Z_20260714T000000Z_000000000003.jsonl"


def test_a_period_becomes_one_file_when_it_is_complete(database_url: str, tmp_path: Path) -> None:
    """SPEC 5 "Files": nothing is there before, then all of it is; coverage follows; what is not new makes no file."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending, tmp_path)
        await sending.world.tick()
        assert files(tmp_path) == {}
        assert await sending.world.covered(chain) == []
        await sending.send()
        assert files(tmp_path) == {FIRST: [1, 2, 3, 4, 5, 6]}
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]
        assert await sending.outbox() == []

        sending.world.clock.set(utc(15))
        await sending.tick()
        assert files(tmp_path).keys() == {FIRST}
        assert len(await sending.world.covered(chain)) == 2

    in_sending(database_url, story)


def test_a_failed_run_leaves_no_file_and_the_next_ones_file_holds_its_records(
    database_url: str, tmp_path: Path
) -> None:
    """SPEC 2.7, 5: what a failed run had fetched is not fetched as new again, and must not be lost by that."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending, tmp_path)
        sending.world.with_settings(retry=replace(sending.world.parts.settings.retry, attempts=1))
        sending.world.shop.on_page = lambda number: SourceUnavailable("away") if number == 3 else None
        await sending.tick()
        assert [row["state"] for row in await sending.world.runs()] == ["failed"]
        assert files(tmp_path) == {}
        sending.world.shop.on_page = lambda _number: None
        sending.world.shop.orders = {}
        sending.world.clock.set(utc(15))
        await sending.tick()
        assert list(files(tmp_path).values()) == [[1, 2, 3, 4]]
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(15))]

    in_sending(database_url, story)


def test_the_same_period_again_makes_a_file_of_what_is_new_and_touches_none(database_url: str, tmp_path: Path) -> None:
    """SPEC 2.11, 4: a backfill, and a backfill of it again; a file is made once, so there is nothing to replay."""
    backfilled = FIRST.replace("0003.jsonl", "0004_backfill.jsonl").replace("20260501", "20260713")

    async def story(sending: Sending) -> None:
        sending.world.shop.streams = {"orders": replace(ORDERS, lookback=timedelta(days=1))}
        await prepare(sending, tmp_path)
        await sending.tick()
        expected = {FIRST: [1, 2, 3, 4, 5, 6]}
        for edited in (False, True, False):
            if edited:
                sending.world.shop.put(2, utc(13, 16, 2), note="edited in the same second")
                expected |= {backfilled: [2]}
            await backfilling.request_backfill(sending.world.parts, "acme", "sync", "orders", utc(13), utc(14))
            await sending.tick()
            assert files(tmp_path) == expected
        assert await replay(sending.world.parts, Choice(tenant_id="acme", installation="sync")) == 0
        await sending.tick()
        assert files(tmp_path) == expected

    in_sending(database_url, story)


@pytest.mark.parametrize("point", ["delivery.sending", "delivery.answered", "delivery.settled"])
def test_dead_around_the_rename_the_file_is_the_same(point: str, database_url: str, tmp_path: Path) -> None:
    """SPEC 5, HOLE s: between the rename and the ledger's commit lies nothing that a second time would change."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending, tmp_path)
        await sending.world.tick()
        last = (await sending.outbox())[-1]["message_id"]
        await sending.die_at(point)
        if point != "delivery.settled":
            name = f"{Path(FIRST).stem}_{last[4:12]}.jsonl"
            draft = tmp_path / f"acme/sync/orders/.{name}.dead-host-1.draft"
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text("half a line")
        sending.world.clock.advance(minutes=1)
        await sending.tick()
        assert files(tmp_path) == {FIRST: [1, 2, 3, 4, 5, 6]}
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_sending(database_url, story)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let the kernel refuse to make a file larger; logs are kept off the disk meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with structlog.testing.capture_logs():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_waited_for_and_loses_nothing(database_url: str, tmp_path: Path) -> None:
    """SPEC 5: what the disk refuses is tried again, nothing half-written is in place, and the reason is shown."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending, tmp_path)
        with files_no_larger_than(100):
            await sending.tick()
        assert files(tmp_path) == {}
        assert [row["state"] for row in await sending.world.runs()] == ["delivering"]
        assert "could not be written" in await sending.pool.fetchval("select error ->> 'message' from routes")
        sending.world.clock.advance(minutes=20)
        await sending.tick()
        assert files(tmp_path) == {FIRST: [1, 2, 3, 4, 5, 6]}
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_sending(database_url, story)


def test_a_link_that_leads_out_of_the_root_is_refused(database_url: str, tmp_path: Path) -> None:
    """Nothing is written outside the root, whoever has put a link there."""

    async def story(sending: Sending) -> None:
        root, outside = tmp_path / "root", tmp_path / "outside"
        root.mkdir()
        outside.mkdir()
        (root / "acme").symlink_to(outside)
        await prepare(sending, root)
        await sending.tick()
        assert files(outside) == {}
        assert "leads out of" in await sending.pool.fetchval("select error ->> 'message' from routes")

    in_sending(database_url, story)


HOSTILE = ["..", ".", "../../etc", "a/b", "/etc", ".hidden", "~root", "x" * 200, "é" * 200, "a\nb", "%2E.", "C:\\x"]


def test_no_name_leads_out_of_the_root_and_no_two_meet() -> None:
    """Whatever tenants, installations and streams are called."""
    made = [names.component(name) for name in HOSTILE]
    assert len(set(made)) == len(HOSTILE)
    for component in made:
        assert len(component.encode()) <= 200
        assert "/" not in component
        assert not component.startswith(".")


@pytest.mark.parametrize("root", [None, "", "relative/path", "/", "/var/../etc", 7, "/a\x00b"])
def test_a_root_that_is_no_absolute_folder_is_refused(root: object) -> None:
    """House rule: bad input names field, value, problem and remedy."""
    with pytest.raises(InvalidInput) as refusal:
        root_of({} if root is None else {"root": root})
    assert refusal.value.field == "settings.root"
    assert refusal.value.remedy

"""What stands in the destination and in the ledger, compared with what really happened at the source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from tests.loss.dialects import EPOCH, WALL, Dialect
from tests.loss.history import DEEP, History, Version, key
from tests.loss.tap import Delivered
from tidegate.destinations.postgres import pieces
from tidegate.domain.coverage import Link, breaks
from tidegate.domain.schedule import Schedule, latest_due, start_instant
from tidegate.domain.zone_data import zone_info

Name = tuple[int, int]


class Violation(NamedTuple):
    """A broken promise; ``kind`` says which:

    lie        covered to W, but a record changed before W and shown when the fetch began is not delivered
    late       a record shown when the fetch began, and unchanged since, is not delivered by that run
    lost       all is quiet and covered, and a record is still not delivered at its version
    wrong      a row is not what the source showed
    twice      a version was written twice
    backwards  an older version was written over a newer one
    unstored   a newer version was delivered and not stored, or a version stored that was not delivered
    quarantine it does not hold exactly the poison records
    again      a run delivered the same page twice, or a message came again with another body
    order      messages came out of their order, or one did not come
    chain      the coverage is not a chain of due dates
    stuck      the source has been quiet for long, and the coverage has not come so far
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Found:
    """The destination's rows by record, and the versions in quarantine."""

    rows: Mapping[int, Mapping[str, Any]]
    quarantined: frozenset[Name]
    texts: frozenset[str]

    def has(self, version: Version) -> bool:
        """Whether the version, or a newer one, has been delivered or, being poison, quarantined."""
        if version.flaw:
            return version.name in self.quarantined
        row = self.rows.get(version.id)
        return row is not None and row["revision"] >= version.revision


async def found(pool: asyncpg.Pool[asyncpg.Record], schema: str) -> Found:
    """Read all that has been delivered."""
    rows: dict[int, Mapping[str, Any]] = {}
    if await pool.fetchval("select to_regclass($1)", f"{schema}.hostile_orders"):
        for record in await pool.fetch(f"select row_to_json(t)::text as row from {schema}.hostile_orders t"):
            row = json.loads(record["row"], parse_float=Decimal)
            rows[row["ref"]] = row
    return await kept_aside(pool, rows)


async def kept_aside(pool: asyncpg.Pool[asyncpg.Record], rows: Mapping[int, Mapping[str, Any]]) -> Found:
    """Return ``rows`` with what the quarantine holds."""
    texts = [bytes(row["record"]).decode() for row in await pool.fetch("select record from quarantine")]
    return Found(rows, frozenset(name_of(text) for text in texts), frozenset(texts))


def name_of(text: str) -> Name:
    """Which version of which record a JSON text is, poison or not."""
    record = json.loads(text.replace(DEEP, "0"), strict=False)
    return (record[1], record[2]) if isinstance(record, list) else (record["ref"], record["revision"])


def promised(history: History, now: datetime, start: datetime) -> Iterator[Version]:
    """Of the versions shown at ``now`` those that a chain starting at ``start`` has to deliver sooner or later."""
    for version in history.latest(now):
        cursor = version.changed_at if history.dialect.changes else version.created_at
        if not history.dialect.cursor or cursor >= start:
            yield version


def kept_promise(
    history: History, there: Found, now: datetime, start: datetime, watermark: datetime, begun_at: datetime
) -> Iterator[Violation]:
    """Yield what *covered to* ``watermark`` promises and is not there, the fetch having begun at ``begun_at``."""
    for version in promised(history, now, start):
        if version.shows_at >= begun_at or there.has(version):
            continue
        cursor = version.changed_at if history.dialect.changes else version.created_at
        if cursor < watermark:
            yield Violation("lie", f"covered to {watermark}, without {version}")
        elif history.dialect.changes and cursor <= begun_at:
            yield Violation("late", f"the run of {begun_at} did not deliver {version}")


def all_there(history: History, there: Found, now: datetime, start: datetime) -> Iterator[Violation]:
    """Yield what is not in the destination although all is quiet, and what is there and should not be."""
    for version in promised(history, now, start):
        if not there.has(version):
            yield Violation("lost", f"{version} is not there, but {there.rows.get(version.id)}")
    for number, row in there.rows.items():
        version = history.versions[number][row["revision"] - 1]
        yield from (
            Violation("wrong", f"{version}: {problem}") for problem in differences(row, version, history.dialect)
        )


def differences(row: Mapping[str, Any], version: Version, dialect: Dialect) -> Iterator[str]:
    """Yield how a row differs from its version, values in the side column included."""
    aside = row["_tidegate_misfits"] or {}
    for field, expected in version.fields(dialect).items():
        actual = aside[field] if field in aside else row.get(field)
        if field == dialect.cursor:
            instants = [row["_tidegate_cursor"], *([] if actual == expected else [actual])]
            yield from (f"{field} is {text}" for text in instants if not _fits(text, version, dialect))
            continue
        exact = json.loads(json.dumps(expected), parse_float=Decimal)
        if field == "id" and dialect.text_keys:
            exact = key(version.id, dialect)
        if isinstance(exact, str) and isinstance(actual, Decimal | int) and field == "amount":
            exact = Decimal(exact)  # a number in quotes is a number to a column of numbers
        if actual != exact or isinstance(actual, bool) is not isinstance(exact, bool):
            yield f"{field} is {actual!r}, not {exact!r}"


def _fits(text: str, version: Version, dialect: Dialect) -> bool:
    instant = datetime.fromisoformat(text)
    at = version.changed_at if dialect.cursor == "updated_at" else version.created_at
    floored = EPOCH + (dialect.kept(at) - EPOCH) // dialect.grain * dialect.grain
    zone = zone_info(dialect.zone) if dialect.format in WALL else UTC
    first, second = (floored.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return instant == first
    return min(first, second) - timedelta(hours=1) <= instant <= max(first, second)  # a wall time that occurs twice


def stored_once(
    delivered: Sequence[Delivered], written: Mapping[int, list[int]], history: History
) -> Iterator[Violation]:
    """Yield where the rows written are not what the version rule makes of the pages delivered (SPEC 4, "Versions")."""
    expected: dict[int, list[int]] = {}
    for batch in delivered:
        newest: dict[int, int] = {}
        for number, revision in names(batch):
            if not history.versions[number][revision - 1].flaw:
                newest[number] = max(revision, newest.get(number, 0))
        for number, revision in newest.items():
            if revision > max(expected.get(number, [0])):
                expected.setdefault(number, []).append(revision)
    for number in expected.keys() | written.keys():
        wanted, was = expected.get(number, []), written.get(number, [])
        if len(set(was)) < len(was):
            yield Violation("twice", f"record {number} was written at the revisions {was}, delivered {wanted}")
        elif was != sorted(was):
            yield Violation("backwards", f"record {number} was written at the revisions {was}")
        elif was != wanted:
            yield Violation("unstored", f"record {number} was written at the revisions {was}, delivered {wanted}")


def names(batch: Delivered) -> Iterator[Name]:
    """Yield the versions on the pages of a batch."""
    for page in batch.pages:
        for record in pieces.records(page.records):
            yield name_of(record.decode())


def quarantined(delivered: Sequence[Delivered], there: Found, history: History) -> Iterator[Violation]:
    """Yield where the quarantine does not hold exactly the poison that was delivered, as the source wrote it."""
    versions = [history.versions[number][revision - 1] for batch in delivered for number, revision in names(batch)]
    poison = {version.text(history.dialect) for version in versions if version.flaw}
    if poison != there.texts:
        yield Violation("quarantine", f"missing {poison - there.texts}, too much {there.texts - poison}")


def pages_once(delivered: Sequence[Delivered]) -> Iterator[Violation]:
    """Yield runs that delivered a page again, word for word, although its checkpoint had committed."""
    seen: set[tuple[int, bytes]] = set()
    for batch in delivered:
        for page in batch.pages:
            named = (batch.key.run_id, page.records)
            if named in seen and page.records != b"[]":
                yield Violation("again", f"run {batch.key.run_id} delivered twice the page {page.records[:200]!r}")
            seen.add(named)


def chained(links: Sequence[Link], schedule: Schedule) -> Iterator[Violation]:
    """Yield where the coverage is not a chain from the schedule's start along its due dates (SPEC 2.7, HOLE j)."""
    for before, after in breaks(links):
        yield Violation("chain", f"{before.period} and {after.period} do not meet")
    if links and links[0].period.start != start_instant(schedule):
        yield Violation("chain", f"it begins at {links[0].period.start}")
    for link in links:
        end = link.period.end
        if latest_due(schedule, end - timedelta(microseconds=1), end) != end:
            yield Violation("chain", f"{end} is no due date")

"""The chain is kept by the database itself (SPEC 5, "The chain"): each way to break it is refused, by the rule named.

So that the refusals are no accident, every one of them is tried again with its rule dropped, and then it is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import pytest

from tests.store.rows import Connection, chain, on


def july(day: int) -> datetime:
    return datetime(2026, 7, day, tzinfo=UTC)


Link = tuple[int, int, int | None]
"""(start, end, previous end) as days of July."""
WHOLE: tuple[Link, ...] = ((1, 2, None), (2, 3, 2), (3, 4, 3))


@dataclass(frozen=True)
class Break:
    """A statement that breaks a whole chain of three days, and the rules that refuse it, all to be dropped at once."""

    name: str
    statement: str
    rules: tuple[str, ...]
    link: Link | None = None


STARTS_BEFORE_END = "coverage_check"
FOLLOWS = "coverage_check1"
FORK = "coverage_chain_id_previous_end_key"
BEFORE_IT = "coverage_chain_id_previous_end_fkey"
SAME_END = "coverage_pkey"
ONE_HEAD = "coverage_one_head"
INSERT = """insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, committed_at)
            values ($1, $3, $4, $5, 'covered', $2, now())"""

BREAKS = [
    Break("a gap", INSERT, (FOLLOWS,), (5, 6, 4)),
    Break("a gap behind an end that is not there", INSERT, (BEFORE_IT,), (5, 6, 5)),
    Break("an overlap", INSERT, (FOLLOWS,), (3, 5, 4)),
    Break("an overlap from a second successor", INSERT, (FORK,), (2, 5, 2)),
    Break("a fork", INSERT, (FORK,), (3, 5, 3)),
    Break("a second head", INSERT, (ONE_HEAD,), (7, 8, None)),
    Break("a head in front", INSERT, (ONE_HEAD,), (-1, 1, None)),
    Break("a backward row", INSERT, (STARTS_BEFORE_END, SAME_END), (4, 3, 4)),
    Break("an empty row", INSERT, (STARTS_BEFORE_END, SAME_END), (4, 4, 4)),
    Break("an empty row that precedes itself", INSERT, (STARTS_BEFORE_END,), (9, 9, 9)),
    Break("the same end twice", INSERT, (SAME_END, ONE_HEAD), (2, 4, None)),
    Break(
        "deletion from the middle",
        "delete from coverage where chain_id = $1 and period_end = '2026-07-03'",
        (BEFORE_IT,),
    ),
    Break("deletion of the head", "delete from coverage where chain_id = $1 and previous_end is null", (BEFORE_IT,)),
    Break(
        "a middle end moved",
        "update coverage set period_end = '2026-07-03T12:00' where chain_id = $1 and period_end = '2026-07-03'",
        (BEFORE_IT,),
    ),
    Break(
        "a middle start moved",
        "update coverage set period_start = '2026-07-02T12:00' where chain_id = $1 and period_end = '2026-07-03'",
        (FOLLOWS,),
    ),
]


async def whole(connection: Connection) -> tuple[int, int]:
    chain_id, run_id = await chain(connection)
    for start, end, previous in WHOLE:
        await connection.execute(
            INSERT, chain_id, run_id, july(start), july(end), None if previous is None else july(previous)
        )
    return chain_id, run_id


async def attempt(connection: Connection, breaks: Break, chain_id: int, run_id: int) -> None:
    if breaks.link is None:
        await connection.execute(breaks.statement, chain_id)
        return
    start, end, previous = (None if day is None else _day(day) for day in breaks.link)
    await connection.execute(breaks.statement, chain_id, run_id, start, end, previous)


def _day(day: int) -> datetime:
    return july(day) if day > 0 else datetime(2026, 6, 30 + day, tzinfo=UTC)


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.name.replace(" ", "-"))
def test_the_database_refuses(breaks: Break, database_url: str) -> None:
    """SPEC 5: gap, overlap, fork, second head, backward and empty rows, deletion from the middle."""

    async def story(connection: Connection) -> None:
        chain_id, run_id = await whole(connection)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
            await attempt(connection, breaks, chain_id, run_id)
        assert refusal.value.constraint_name in breaks.rules

    on(database_url, story)


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.name.replace(" ", "-"))
def test_without_its_rule_it_is_accepted(breaks: Break, database_url: str) -> None:
    """The rule named is what refuses it: nothing else would."""

    async def story(connection: Connection) -> None:
        chain_id, run_id = await whole(connection)
        for rule in breaks.rules:
            await drop(connection, rule)
        await attempt(connection, breaks, chain_id, run_id)

    on(database_url, story)


async def drop(connection: Connection, rule: str) -> None:
    if rule == ONE_HEAD:
        await connection.execute(f"drop index {rule}")
    else:
        await connection.execute(f"alter table coverage drop constraint {rule} cascade")


def test_a_start_moved_earlier_inserts_in_front_in_one_deferred_transaction(database_url: str) -> None:
    """SPEC 5: the head is updated and the new head inserted before it; at no commit is there a gap or a second head."""

    async def story(connection: Connection) -> None:
        chain_id, run_id = await whole(connection)
        async with connection.transaction():
            await connection.execute("set constraints all deferred")
            await connection.execute(
                "update coverage set previous_end = period_start where chain_id = $1 and previous_end is null", chain_id
            )
            await connection.execute(INSERT, chain_id, run_id, _day(-5), july(1), None)
        rows = await connection.fetch("select period_start, previous_end from coverage order by period_end")
        assert [row["previous_end"] for row in rows] == [None, july(1), july(2), july(3)]

    on(database_url, story)


def test_a_start_moved_earlier_with_a_gap_is_refused_at_commit(database_url: str) -> None:
    """SPEC 5: what is deferred is checked all the same."""

    async def story(connection: Connection) -> None:
        chain_id, _ = await whole(connection)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("set constraints all deferred")
        await connection.execute(
            "update coverage set previous_end = period_start where chain_id = $1 and previous_end is null", chain_id
        )
        with pytest.raises(asyncpg.ForeignKeyViolationError, match=BEFORE_IT):
            await transaction.commit()

    on(database_url, story)


def test_a_waiver_has_a_reason_and_coverage_a_run(database_url: str) -> None:
    """SPEC 5: a waiver appends at the end, with a reason; covered means that a run covered it."""

    async def story(connection: Connection) -> None:
        chain_id, _ = await whole(connection)
        waive = """insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, reason, committed_at)
                   values ($1, '2026-07-04', '2026-07-05', '2026-07-04', $2, null, $3, now())"""
        for kind, reason in (("waived", ""), ("covered", "booked by hand")):
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(waive, chain_id, kind, reason)
        await connection.execute(waive, chain_id, "waived", "booked by hand")

    on(database_url, story)


def test_at_most_one_run_of_a_chain_and_lane_is_active(database_url: str) -> None:
    """SPEC 2.12: identity and no overlap are constraints of the database, not hopes."""
    another = """
    insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end, not_before_at)
    select chain_id, tenant_id, account_id, $1, 'manual', $2, first_due_at, due_at, period_end + $3 * interval '1 day',
           not_before_at from runs order by id limit 1"""

    async def story(connection: Connection) -> None:
        await whole(connection)
        with pytest.raises(asyncpg.UniqueViolationError, match="runs_chain_id_lane_period_end_key"):
            await connection.execute(another, "live", "waiting", 0)
        await connection.execute(another, "live", "queued", 1)
        for state in ("queued", "retrying"):
            with pytest.raises(asyncpg.UniqueViolationError, match="runs_one_active"):
                await connection.execute(another, "live", state, 2)
        await connection.execute(another, "live", "waiting", 2)
        await connection.execute(another, "backfill", "queued", 1)

    on(database_url, story)

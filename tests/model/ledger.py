"""What must hold of one chain at every moment, said once more and without the engine's own queries where that is possible."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from tests.engine.world import World
from tidegate.domain.coverage import Link, LinkKind, Uncovered, breaks
from tidegate.domain.run import ACTIVE, RunState
from tidegate.domain.schedule import Schedule, latest_due, next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.store import chains
from tidegate.store.database import from_json

HALF_HOUR = timedelta(minutes=30)


@dataclass(frozen=True)
class Look:
    """The chain, its runs and its schedule at one moment, and what was delivered."""

    now: datetime
    start_at: datetime
    links: list[Link]
    runs: list[asyncpg.Record]
    schedule: Schedule
    received_at: datetime
    paused: bool
    uncovered: Uncovered | None
    in_front: Uncovered | None
    source: dict[int, str]
    delivered: dict[int, str]

    @property
    def covered_until(self) -> datetime:
        return self.links[-1].period.end if self.links else self.start_at

    @property
    def due_until(self) -> datetime | None:
        """The latest due date passed that is not covered, by the calendar alone."""
        return latest_due(self.schedule, max(self.covered_until, self.received_at), self.now)

    @property
    def told_by(self) -> set[str]:
        """The states of which one must be the reason for what is due and not covered; none if any may be.

        Of the runs that do not wait behind another one: what is active, else what waits, else what ended last.
        """
        next_there = [
            run for run in self.runs if run["lane"] == "live" and run["period_end"] > self.covered_until
            and (run["state"] not in ("waiting", "dropped") or (run["follows_at"] or self.start_at) <= self.covered_until)
        ]  # fmt: skip
        states = {run["state"] for run in next_there}
        ended_at = max((run["finished_at"] for run in next_there if run["finished_at"]), default=None)
        return (
            states & set(ACTIVE)
            or states & {"waiting"}
            or {run["state"] for run in next_there if run["finished_at"] == ended_at}
        )

    @property
    def at_rest(self) -> bool:
        """Nothing is active or could start; what is due is covered, or waits for its run date."""
        waiting = [run for run in self.runs if run["state"] == "waiting"]
        busy = [run for run in self.runs if run["state"] in ACTIVE]
        could = [run for run in waiting if run["not_before_at"] <= self.now]
        planned_until = max((run["period_end"] for run in waiting), default=self.covered_until)
        return not busy and not could and (self.due_until is None or self.due_until <= planned_until)


async def look(world: World) -> Look:
    """Return the one chain there is."""
    chain = await world.pool.fetchrow("select c.id, start_at from chains c")
    schedule = await world.pool.fetchrow("select rule::text as rule, received_at, paused_at from schedules")
    assert chain is not None
    assert schedule is not None
    missing = [stretch for _, stretch in await chains.uncovered(world.pool, world.clock.now())]
    behind = [stretch for stretch in missing if not stretch.in_front]
    in_front = [stretch for stretch in missing if stretch.in_front]
    assert len(behind) < 2
    assert len(in_front) < 2
    return Look(
        now=world.clock.now(),
        start_at=chain["start_at"],
        links=await chains.links(world.pool, chain["id"]),
        runs=await world.runs(),
        schedule=parse_schedule(from_json(schedule["rule"])),
        received_at=schedule["received_at"],
        paused=schedule["paused_at"] is not None,
        uncovered=behind[0] if behind else None,
        in_front=in_front[0] if in_front else None,
        source={number: order["updated_at"] for number, order in world.shop.orders.items()},
        delivered=await world.delivered(),
    )


def check(look: Look, before: Look | None, *, settled: bool) -> None:
    """Hold a chain against the rules; ``settled``: the planner has looked at this very moment."""
    check_chain(look, before)
    check_identities(look)
    check_promise(look)
    check_named(look, settled=settled)


def check_chain(look: Look, before: Look | None) -> None:
    """SPEC 5: one head, no gap, nothing before the start, nothing in the future; what was covered stays covered."""
    links = look.links
    assert breaks(links) == []
    assert not links or links[0].period.start >= look.start_at
    assert not links or links[-1].period.end <= look.now
    assert all(link.reason or link.kind is LinkKind.COVERED for link in links)
    if before is None or not before.links:
        return
    assert links, "coverage is never taken away"
    assert links[0].period.start <= before.links[0].period.start
    assert look.covered_until >= before.covered_until
    was, now = covered_hours(before.links), covered_hours(links)
    assert was <= now, f"covered before and not now: {sorted(was - now)}"


def covered_hours(links: list[Link]) -> set[datetime]:
    """Return the whole half hours inside what is covered (not waived): all stories move in these."""
    found: set[datetime] = set()
    for link in links:
        if link.kind is LinkKind.COVERED:
            at = link.period.start
            while at < link.period.end:
                found.add(at)
                at += HALF_HOUR
    return found


def check_identities(look: Look) -> None:
    """SPEC 2.12: one run per lane and end, one active per lane; a live run that succeeded is in the chain."""
    keys = [(run["lane"], run["period_end"]) for run in look.runs]
    assert len(keys) == len(set(keys))
    for lane in ("live", "backfill"):
        active = [run["id"] for run in look.runs if run["lane"] == lane and run["state"] in ACTIVE]
        assert len(active) < 2, f"active at once: {active}"
    ids = {run["id"]: run for run in look.runs}
    for link in look.links:
        assert link.run_id is None or ids[link.run_id]["state"] in ("succeeded", *again(ids[link.run_id]))
    for run in look.runs:
        if run["lane"] == "live" and run["state"] == "succeeded":
            assert run["period_end"] <= look.covered_until
            assert look.links[0].period.start <= run["period_start"]


def again(run: asyncpg.Record) -> list[str]:
    """Return the states that a run which has covered something may be in: a backfill may be asked for again."""
    return [state for state in RunState if state != "succeeded"] if run["lane"] == "backfill" else []


def check_promise(look: Look) -> None:
    """Covered means: every record whose current cursor value lies in it has been delivered at that version."""
    covered = [link.period for link in look.links if link.kind is LinkKind.COVERED]
    for number, updated_at in look.source.items():
        at = datetime.fromisoformat(updated_at)
        if any(period.contains(at) for period in covered):
            assert look.delivered.get(number) == updated_at, f"order {number} of {updated_at} is promised"


def check_named(look: Look, *, settled: bool) -> None:
    """SPEC 5: every due but uncovered stretch is named with its reason, from where it is covered to.

    The reason is the run's that is next there, whatever became of others planned by a rule that an edit has replaced.
    """
    missing = look.uncovered
    if missing is not None:
        assert missing.period.start == look.covered_until
        assert missing.period.end <= look.now
        assert missing.reason
        assert not look.told_by or missing.reason.startswith(tuple(look.told_by)), f"{missing}: {look.told_by}"
    due_until = look.due_until
    if due_until is not None:
        assert missing is not None, f"{look.covered_until} to {due_until} is due, not covered and not named"
        first = next_due(look.schedule, max(look.covered_until, look.received_at))
        assert missing.period.end >= (due_until if settled else first or due_until)
    if look.links and look.start_at < look.links[0].period.start:
        assert look.in_front is not None
        assert look.in_front.reason
        assert (look.in_front.period.start, look.in_front.period.end) == (look.start_at, look.links[0].period.start)
    else:
        assert look.in_front is None


def check_at_rest(look: Look) -> None:
    """In the end all that is due is covered, and what is missing in front has ended without covering and says so."""
    assert look.at_rest, f"still {[run['period_end'] for run in look.runs if not run['finished_at']]}, {look.uncovered}"
    assert look.due_until is None or (look.uncovered is not None and look.uncovered.reason == "waiting")
    if look.in_front is not None:
        assert look.in_front.reason.startswith(("failed", "unproven", "dropped", "not planned")), look.in_front

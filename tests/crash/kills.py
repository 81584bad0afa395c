"""Kills: what is killed and when, and how a round with a kill in it is played."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.crash.harness import ALL, Cast, Form, World, open_world
from tests.crash.points import LIVE, SIGNAL, Death, Orders

LATE_SECONDS = 1.5
"""How long after its round's end an ordered death may still come: some points lie behind the last commit."""
SWEEP = "DELETE FROM pgqueuer_log"
"""The last statement of a pass of the sweeper."""


class Kind(StrEnum):
    """What kind of crash."""

    SIGNAL = "at a signal of the engine"
    STATEMENT = "around a statement"
    INSTANT = "at a random instant"
    SOURCE = "the source's server, at a random instant"
    BACKEND = "a PostgreSQL backend, at a random instant"
    FREEZE = "frozen past its lease, then thawed"


@dataclass(frozen=True, slots=True)
class Kill:
    """One crash. ``fresh``: in a new world's first round, from the process's first statement on.

    ``death``: where the ``victim`` (its place in the cast) dies; without one, it dies ``after`` so many seconds.
    ``again``: where its replacement dies, in mid-recovery.
    """

    kind: Kind
    form: Form
    cast: Cast = Cast.ONE
    victim: int = 0
    death: Death | None = None
    after: float = 0.0
    again: Death | None = None
    fresh: bool = False

    def __str__(self) -> str:
        where = str(self.death) if self.death else f"after {self.after:.3f} s"
        return f"{self.kind}, {self.form}, {self.cast}: {where}" + (f", again {self.again}" if self.again else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a kill: how many deaths there were, and how long after the first one all was covered.

    ``seconds`` is None if nothing died before the round was covered. ``unasked``: processes that ended by themselves.
    """

    deaths: int
    seconds: float | None
    unasked: int


async def play(world: World, kill: Kill) -> Outcome:
    """Play one round with ``kill`` in it and check the world. Raises Violation."""
    before = len(world.fallen)
    orders = Orders(kill.death)
    if kill.fresh:
        world.trade()
        for place, roles in enumerate(kill.cast.roles):
            world.spawn(roles, orders if place == kill.victim else LIVE)
    else:
        await world.ready()
        world.children[kill.victim].order(orders)
        world.trade()
    struck = await _strike(world, kill) if kill.death is None else None
    covered = await world.settle(orders=Orders(kill.again))
    await _late(world, kill, before)
    if kill.kind is Kind.FREEZE:
        await _thaw(world, kill)
    await world.check()
    fallen = world.fallen[before:]
    moments = [each.killed_at for each in fallen if each.killed_at is not None] + ([struck] if struck else [])
    first = min(moments, default=None)
    return Outcome(
        deaths=len(moments) - (1 if struck and kill.kind is Kind.INSTANT else 0),
        seconds=None if first is None or first >= covered else covered - first,
        unasked=sum(each.killed_at is None for each in fallen),
    )


async def _strike(world: World, kill: Kill) -> float:
    """Crash something from outside ``kill.after`` seconds into the round; return when (time.monotonic)."""
    await asyncio.sleep(kill.after)
    match kill.kind:
        case Kind.SOURCE:
            world.source.kill()
            world.source.start()
        case Kind.BACKEND:
            await world.terminate_backend()
        case Kind.FREEZE:
            world.children[kill.victim].send(signal.SIGSTOP)
        case _:
            world.children[kill.victim].kill()
    return time.monotonic()


async def _late(world: World, kill: Kill, before: int) -> None:
    """Wait for a death that comes after the round is covered; take back the orders that nobody has followed."""
    deadline = time.monotonic() + LATE_SECONDS
    while kill.death and len(world.fallen) == before and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        world.revive()
    world.revive()
    for child in world.children:
        child.order(LIVE)


async def _thaw(world: World, kill: Kill) -> None:
    """Let the frozen process go on, and wait until it has found out that its leases are gone."""
    victim = world.children[kill.victim]
    victim.send(signal.SIGCONT)
    victim.order(Orders(tracing=True))
    await world.until(lambda: victim.alive and len(victim.trace) > 20, "the thawed process goes on")


async def play_story(
    server: str, name: str, template: str, root: Path, kills: Sequence[Kill], outcomes: list[Outcome]
) -> None:
    """Play ``kills``, all of one form and cast, in one world, and append what became of each; the first round is calm
    unless the first kill is fresh. Raises Violation.
    """
    first = kills[0]
    async with open_world(server, name, template, first.form, root) as world:
        if not first.fresh:
            for roles in first.cast.roles:
                world.spawn(roles)
            world.trade()
            await world.settle()
        for kill in kills:
            outcome = await play(world, kill)
            outcomes.append(outcome)


async def reconnoitre(
    server: str, name: str, template: str, root: Path, form: Form
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the points (side, name) that one calm process passes in its first round, and in a later one, in order."""
    async with open_world(server, name, template, form, root) as world:
        world.trade()
        child = world.spawn(ALL, Orders(tracing=True))
        await _quiet(world)
        first = list(child.trace)
        child.order(Orders(tracing=True))
        world.trade()
        await _quiet(world)
        return first, list(child.trace)


async def _quiet(world: World) -> None:
    """Wait for the end of the round's runs and for what follows them: completed jobs, and a pass of the sweeper."""
    ended = (SIGNAL, "run.ended")
    await world.settle()
    (child,) = world.children
    await world.until(lambda: child.alive and child.trace.count(ended) == len(world.shop.records), "the runs end")
    passed = len(child.trace)
    await world.until(
        lambda: child.alive and any(SWEEP in name for _, name in child.trace[passed:]), "the sweeper passes"
    )

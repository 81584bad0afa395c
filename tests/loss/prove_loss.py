"""The loss proof at length: `python -m tests.loss.prove_loss [--stories N] [--first SEED]`, or `--story SEED` for one.

Prints how much was played and what was lost; ends with 1 if any promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from tests.loss.harness import Outcome, play
from tests.loss.story import Story, drawn
from tidegate.store import database, schema
from tidegate.store.embedded import EmbeddedServer


@contextmanager
def database_at() -> Iterator[str]:
    """A server of its own, with Tidegate's schema."""
    with tempfile.TemporaryDirectory(prefix="tidegate-loss-") as folder:
        server = EmbeddedServer(Path(folder))
        asyncio.run(_migrate(server.dsn))
        try:
            yield server.dsn
        finally:
            server.release()


async def _migrate(dsn: str) -> None:
    pool = await database.open_pool(dsn, size=2)
    await schema.migrate(pool)
    await pool.close()


def _prove(dsn: str, stories: list[Story]) -> bool:
    total, lost, dialects = Outcome(), 0, Counter[str]()
    for number, story in enumerate(stories, start=1):
        outcome = play(dsn, story)
        dialects[story.dialect] += 1
        lost += bool(outcome.violations)
        for violation in outcome.violations[:3]:
            print(f"\nstory {story.seed}: {violation.kind}: {violation.detail}\n  {story}", flush=True)
        total.runs += outcome.runs
        total.faults += outcome.faults
        for name in ("requests", "pages", "versions", "written"):
            setattr(total, name, getattr(total, name) + getattr(outcome, name))
        if sys.stdout.isatty() or number == len(stories):
            print(f"\r{number} of {len(stories)} stories, {lost} broken", end="", flush=True)
    print("\n" + _summary(total, dialects, lost))
    return not lost


def _summary(total: Outcome, dialects: Counter[str], lost: int) -> str:
    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))

    return "\n".join((
        f"stories   {dialects.total():,} in {len(dialects)} dialects: {listed(dialects)}",
        f"runs      {total.runs.total():,}: {listed(total.runs)}",
        f"requests  {total.requests:,}, of which {total.faults.total():,} went wrong: {listed(total.faults)}",
        f"pages     {total.pages:,} delivered",
        f"versions  {total.versions:,} at the source, {total.written:,} rows written, none twice",
        f"stories with a promise broken = {lost}",
    ))  # fmt: skip


def main() -> int:
    """Play the stories that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=2000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--story", type=int, help="play this one only")
    parser.add_argument(
        "--dialect", action="append", help="of the stories only those told in this one; may be given again"
    )
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    seeds = range(given.first, given.first + given.stories) if given.story is None else [given.story]
    stories = [story for story in map(drawn, seeds) if given.dialect is None or story.dialect in given.dialect]
    with database_at() as dsn:
        return 0 if _prove(dsn, stories) else 1


if __name__ == "__main__":
    sys.exit(main())

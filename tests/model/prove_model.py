"""The model's stories at length: `python -m tests.model.prove_model [--stories N] [--steps N] [--seed N] [--shrink]`.

Prints how many stories and steps there were, what happened in them, and how long it took. The first story that breaks a
rule is printed as code, made shorter if asked for (which takes long), and ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

import asyncpg
import hypothesis
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conftest import at
from tests.model.machine import ChainStory
from tidegate.store import database, schema
from tidegate.store.embedded import EmbeddedServer


async def make(dsn: str) -> None:
    """Make the database of the stories."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("create database model")
    await connection.close()
    pool = await database.open_pool(at(dsn, "model"), size=2)
    await schema.migrate(pool)
    await pool.close()


def prove(dsn: str, stories: int, steps: int, seed: int, *, shrink: bool) -> bool:
    """Play the stories; return whether every rule held."""

    class Story(ChainStory):
        pass

    Story.dsn = dsn
    begun = time.perf_counter()
    long = settings(
        max_examples=stories,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    well = True
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Story), settings=long)
    except Exception:
        traceback.print_exc()
        well = False
    seconds = time.perf_counter() - begun
    total = sum(Story.done.values())
    for what, count in Story.done.most_common():
        print(f"{count:8,}  {what}")
    print(f"{Story.done['installed']:,} stories, {total:,} steps, {seconds:.0f} s, seed {seed}: ", end="")
    print("every rule held after every step" if well else "a rule was broken")
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=300)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shrink", action="store_true")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="tidegate-model-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedServer(Path(folder))
        try:
            asyncio.run(make(server.dsn))
            return (
                0 if prove(at(server.dsn, "model"), given.stories, given.steps, given.seed, shrink=given.shrink) else 1
            )
        finally:
            server.release()


if __name__ == "__main__":
    sys.exit(main())

"""A further worker, in a process of its own: `python -m benchmarks.small_runs.further_worker DATA_DIR`.

Prints a line when it is up, begins to work at a line from its standard input, and works until that closes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from benchmarks.small_runs.settings import options
from tidegate.bootstrap import assemble, collect_rarely
from tidegate.engine.engine import Engine, Role


async def work(data_dir: Path) -> None:
    """Work from the first line of standard input until it closes."""
    async with assemble(options(data_dir)) as parts:
        collect_rarely()
        engine = Engine(parts, frozenset({Role.WORKER}))
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        working = asyncio.create_task(engine.run())
        await asyncio.to_thread(sys.stdin.read)
        engine.stop()
        await working


if __name__ == "__main__":
    uvloop.run(work(Path(sys.argv[1])))

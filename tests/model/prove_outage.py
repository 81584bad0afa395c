"""Three days of outage at every-minute cadence, in simulated time: `python -m tests.model.prove_outage [--streams N]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog

from tests.conftest import at
from tests.engine.world import in_world
from tests.model.outage import LIMIT, MINUTE, TENANTS, Figures, play
from tests.model.prove_model import make
from tidegate.store.embedded import EmbeddedServer

OUTAGE = timedelta(days=3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=TENANTS)
    streams = parser.parse_args().streams
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    well = True
    for catch_up in ("coalesce", "each"):
        with tempfile.TemporaryDirectory(prefix="tidegate-outage-", ignore_cleanup_errors=True) as folder:
            server = EmbeddedServer(Path(folder))
            try:
                asyncio.run(make(server.dsn))
                begun = time.perf_counter()
                story = partial(play, catch_up=catch_up, outage=OUTAGE, streams=streams)
                figures = in_world(at(server.dsn, "model"), story)
                well &= tell(catch_up, figures, streams, time.perf_counter() - begun)
            finally:
                server.release()
    return 0 if well else 1


def tell(catch_up: str, figures: Figures, streams: int, seconds: float) -> bool:
    """Print what happened; return whether it is what SPEC 2.8 says."""
    print(
        f"{catch_up}: {streams} streams, 3 days at every minute: {figures.runs:,} runs in {seconds:.0f} s "
        f"({figures.runs / seconds:.0f}/s); at most {figures.most_rows} rows of one stream waited, at most "
        f"{figures.most_active} of {LIMIT} runs of the account were active; {figures.open_ended} open-ended; in order: "
        f"{figures.in_order}; uncovered: {figures.uncovered}",
        flush=True,
    )
    each = OUTAGE // MINUTE if catch_up == "each" else 1
    lengths = {MINUTE} if catch_up == "each" else {OUTAGE}
    return (
        figures.runs == each * streams
        and set(figures.periods) == lengths
        and figures.in_order
        and figures.most_active <= LIMIT
        and figures.most_rows <= 100
        and not figures.uncovered
    )


if __name__ == "__main__":
    sys.exit(main())

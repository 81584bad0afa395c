"""The paging proof: `python -m tests.paging.prove_paging [--part NAME] [--dialect TEXT]`.

Plays every movement of small lists in every dialect and prints what was played; ends with 1 if anything was lost that is no
documented exception.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import groupby

from tests.paging.exploring import Figures
from tests.paging.plan import AT_LENGTH, Part


def _prove(part: Part, text: str) -> Figures:
    begun, total = time.process_time(), Figures()
    print(f"{part.name}: {part.shortest} to {part.longest} records, {_of(part.sizes)} a page", flush=True)
    for name, plays in groupby(part.plays(text), key=lambda play: play[0].name):
        played = Figures()
        for *_, figures in plays:
            played.add(figures)
            if sys.stdout.isatty():
                print(f"\r  {name}: {played.cases:,} cases", end="\r", flush=True)
        print(f"  {name:<66} {_told(played)}", flush=True)
        total.add(played)
    print(f"  {f'all, {time.process_time() - begun:.0f} s of CPU':<66} {_told(total)}", flush=True)
    for loss in sorted(total.losses, key=lambda one: (len(one.script), len(one.records), len(one.asked)))[:3]:
        print(f"\n{loss}\n", flush=True)
    return total


def _of(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes[:-1])) + f" and {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"


def _told(figures: Figures) -> str:
    ends = ", ".join(f"{end} {count:,}" for end, count in sorted(figures.ends.items()))
    excepted = f", excepted {figures.exceptions.total():,}" if figures.exceptions else ""
    return (
        f"{figures.scripts:>11,} scripts {figures.cases:>9,} cases {figures.requests:>10,} requests: {ends}{excepted},"
        f" lost = {len(figures.losses)}"
    )


def main() -> int:
    """Play what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="", help="only the parts whose name has this in it")
    parser.add_argument("--dialect", default="", help="only the dialects whose name has this in it")
    given = parser.parse_args()
    total = Figures()
    for part in AT_LENGTH:
        if given.part in part.name:
            total.add(_prove(part, given.dialect))
    print(f"\nall parts: {_told(total)}")
    for exception, cases in sorted(total.exceptions.items()):
        print(f"documented exception, {exception}: {cases:,} cases")
    print(f"most requests of one fetch: {total.most_requests}")
    return 1 if total.losses else 0


if __name__ == "__main__":
    sys.exit(main())

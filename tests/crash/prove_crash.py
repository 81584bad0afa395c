"""`make prove-crash`: a thousand crashes, every one followed by a look at everything that must be true.

Prints counts by kind and the time to recover; exits 1 if anything was lost, doubled or stuck. What has been played is
kept under .cache/prove-crash for exactly this source code, so that a proof that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.conftest import at
from tests.crash.audit import Violation
from tests.crash.harness import Form
from tests.crash.kills import Kill, Kind, Outcome, play_story, reconnoitre
from tests.crash.plan import Trace, more, plan
from tidegate.store import database, schema
from tidegate.store.embedded import EmbeddedServer

TEMPLATE = "crash_template"
SEED = 20260701
ATTEMPTS = 3
"""A point that a process happened not to pass is tried again this often in all."""


@dataclass
class Record:
    """One kill that was played."""

    kind: str
    form: str
    kill: str
    deaths: int = 0
    seconds: float | None = None
    unasked: int = 0
    violation: str = ""


@dataclass
class Played:
    """What has been played so far, kept in ``file`` as JSON lines: the traces first, then a line per story."""

    file: Path
    traces: dict[Form, tuple[Trace, Trace]] = field(default_factory=dict)
    stories: dict[str, list[Record]] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Played:
        """Return what ``file`` holds; nothing if it is not there."""
        played = cls(file)
        for line in file.read_text().splitlines() if file.exists() else ():
            entry = json.loads(line)
            if "traces" in entry:
                played.traces = {Form(form): _trace_pair(pair) for form, pair in entry["traces"].items()}
            else:
                played.stories[entry["story"]] = [Record(**record) for record in entry["kills"]]
        return played

    def add(self, **entry: Any) -> None:
        """Append a line."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as out:
            out.write(json.dumps(entry) + "\n")

    @property
    def records(self) -> list[Record]:
        """Return all kills played."""
        return [record for records in self.stories.values() for record in records]


def _trace_pair(pair: Sequence[Any]) -> tuple[Trace, Trace]:
    first, later = ([(side, name) for side, name in trace] for trace in pair)
    return first, later


class Proof:
    """A server, some lanes that play stories side by side, and the record of it all."""

    def __init__(self, server: str, root: Path, played: Played, progress: Progress) -> None:
        self._server, self._root, self._played, self._progress = server, root, played, progress

    async def run(self, total: int, lanes: int) -> None:
        """Play until ``total`` deaths have been died and every point has been tried."""
        await self._template()
        if not self._played.traces:
            await self._reconnoitre()
        bar = self._progress.add_task("kills", total=total, completed=self._deaths)
        told = plan(self._played.traces, SEED, total)
        await self._play({f"planned {number}": kills for number, kills in enumerate(told)}, lanes, bar)
        for attempt in range(2, ATTEMPTS + 1):
            missed = [kill for kills in told for kill in kills if kill.death and not self._hit(kill)]
            await self._play({f"again {attempt} {kill}": [kill] for kill in missed}, lanes, bar)
        extra = 0
        while self._deaths < total:
            extra += 1
            further = more(total - self._deaths, SEED + extra)
            await self._play({f"more {extra}.{number}": kills for number, kills in enumerate(further)}, lanes, bar)

    @property
    def _deaths(self) -> int:
        return sum(record.deaths for record in self._played.records)

    def _hit(self, kill: Kill) -> bool:
        return any(record.kill == str(kill) and record.deaths for record in self._played.records)

    async def _template(self) -> None:
        admin = await asyncpg.connect(self._server)
        await admin.execute(f"create database {TEMPLATE}")
        await admin.close()
        pool = await database.open_pool(at(self._server, TEMPLATE), size=2)
        await schema.migrate(pool)
        await pool.close()

    async def _reconnoitre(self) -> None:
        for form in Form:
            self._played.traces[form] = await reconnoitre(
                self._server, f"calm_{form.name.lower()}", TEMPLATE, self._root / f"calm-{form.name}", form
            )
        self._played.add(traces={form.value: pair for form, pair in self._played.traces.items()})

    async def _play(self, told: dict[str, list[Kill]], lanes: int, bar: Any) -> None:
        waiting = iter([(name, kills) for name, kills in told.items() if name not in self._played.stories])

        async def lane(number: int) -> None:
            for name, kills in waiting:
                records = await self._story(number, kills)
                self._played.stories[name] = records
                self._played.add(story=name, kills=[dataclasses.asdict(record) for record in records])
                self._progress.update(bar, completed=self._deaths)

        await asyncio.gather(*(lane(number) for number in range(lanes)))

    async def _story(self, lane: int, kills: list[Kill]) -> list[Record]:
        root = self._root / f"lane-{lane}"
        outcomes: list[Outcome] = []
        trouble = ""
        try:
            await play_story(self._server, f"lane_{lane}", TEMPLATE, root, kills, outcomes)
        except Exception as error:
            trouble = str(error) if isinstance(error, Violation) else repr(error)
            self._progress.console.print(f"[red]{kills[len(outcomes)]}: {trouble}")
            kept = self._played.file.parent / "violations" / f"{len(self._played.stories)}-{lane}"
            shutil.copytree(root, kept, ignore_dangling_symlinks=True)
        shutil.rmtree(root, ignore_errors=True)
        played = [
            Record(kill.kind, kill.form, str(kill), outcome.deaths, outcome.seconds, outcome.unasked)
            for kill, outcome in zip(kills, outcomes, strict=False)
        ]
        if trouble:
            kill = kills[len(outcomes)]
            played.append(Record(kill.kind, kill.form, str(kill), 1, violation=trouble))
        return played


def report(played: Played, console: Console) -> bool:
    """Print what was played; return whether nothing was violated."""
    table = Table(title="Crashes")
    for name in ("kind", "form", "deaths", "violations", "median s", "95 % s", "longest s", "fell by themselves"):
        words = name in ("kind", "form")
        table.add_column(name, justify="left" if words else "right", no_wrap=words)
    for kind in Kind:
        for form in Form:
            of = [record for record in played.records if (record.kind, record.form) == (kind, form)]
            table.add_row(kind, form, *_figures(of))
    table.add_section()
    table.add_row("all", "", *_figures(played.records))
    console.print(table)
    points = {(record.form, record.kill) for record in played.records if record.kind in (Kind.SIGNAL, Kind.STATEMENT)}
    hit = {(record.form, record.kill) for record in played.records if record.deaths} & points
    console.print(f"Points: {len(hit)} of {len(points)} hit.{' Not passed again:' if points - hit else ''}")
    for _, kill in sorted(points - hit):
        console.print(f"  {kill}", highlight=False)
    return not any(record.violation for record in played.records)


def _figures(records: Sequence[Record]) -> Iterator[str]:
    times = sorted(record.seconds for record in records if record.seconds is not None)
    yield str(sum(record.deaths for record in records))
    yield str(sum(bool(record.violation) for record in records))
    for share in (0.5, 0.95, 1.0):
        yield f"{times[min(int(share * len(times)), len(times) - 1)]:.1f}" if times else "-"
    yield str(sum(record.unasked for record in records))


def _of_this_code() -> str:
    here = Path(__file__).parent
    source = here.parents[1] / "src"
    played = [file for file in here.glob("*.py") if not file.name.startswith("test_")]
    digest = hashlib.sha256()
    for file in sorted([*source.rglob("*.py"), *source.rglob("*.sql"), *played]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def main() -> int:
    """Run the proof and return the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=1000)
    arguments.add_argument("--lanes", type=int, default=4, help="worlds played side by side")
    arguments.add_argument("--restart", action="store_true", help="forget what has been played")
    given = arguments.parse_args()
    cache = Path(".cache/prove-crash") / _of_this_code()
    if given.restart:
        shutil.rmtree(cache, ignore_errors=True)
    played = Played.load(cache / "played.jsonl")
    console = Console(width=None if sys.stdout.isatty() else 140)  # figures that a log must not cut
    root = Path(tempfile.mkdtemp(prefix="prove-crash-"))
    server = EmbeddedServer(root / "server")
    try:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
            asyncio.run(Proof(server.dsn, root, played, progress).run(given.kills, given.lanes))
    finally:
        server.release()
        shutil.rmtree(root, ignore_errors=True)
    return 0 if report(played, console) else 1


if __name__ == "__main__":
    sys.exit(main())

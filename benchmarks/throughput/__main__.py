"""Throughput: records per second from a REST source into PostgreSQL, side by side on one machine, in one run.

    python -m benchmarks.throughput [--records 100000] [--rounds 3] [--only floor,tidegate,dlt,singer] [--memory 1000000]

Every contestant reads the same pre-rendered pages of 250 records of 25 typed fields from a server in a process of its own
and upserts them by id into an empty table of the same server, whose durable settings are checked. Rounds are interleaved;
the ratios are those of the medians. A rival's start-up (interpreter, imports, a run over one record) is taken off its time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import asyncpg
import uvloop

from benchmarks.throughput import floor, records, rivals
from tidegate.store.embedded import EmbeddedServer

HERE = Path(__file__).parent
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
TARGETS = {"dlt": 6.0, "singer": 15.0, "floor": 0.6}
MEMORY_TARGET = 150
SHARE = {"singer": 5}
"""A contestant so slow that it gets a fifth of the records; its rate does not depend on how many there are."""


class Bench:
    """One server, one folder, and the contestants: each loads a source's records and returns the seconds it took."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder

    def floor(self, url: str, count: int) -> float:
        """Time the hand-written floor."""
        began = perf_counter()
        assert uvloop.run(floor.run(self.dsn, url)) == count
        return perf_counter() - began

    def tidegate(self, url: str, count: int) -> float:
        """Time Tidegate's worker, in a process of its own; its start-up is outside its clock."""
        return self.worker(url, count)[0]

    def worker(self, url: str, count: int) -> tuple[float, float]:
        """Return the worker's seconds and its process's peak memory in MiB."""
        command = [
            sys.executable,
            "-m",
            "benchmarks.throughput.worker_path",
            self.dsn,
            url,
            str(count),
            str(self.folder),
        ]
        seconds, peak = map(float, _output(command).split())
        return seconds, peak

    def dlt(self, url: str, count: int) -> float:
        """Time dlt's REST source and upsert; csv is the faster of its file formats here."""
        python = rivals.environment("dlt", rivals.DLT) / "python"
        work = tempfile.mkdtemp(dir=self.folder)
        dsn = self.dsn.replace("postgres:@/", "postgres:none@localhost:5432/")
        began = perf_counter()
        loaded = _output([str(python), str(HERE / "rivals" / "dlt_pipeline.py"), dsn, url, "csv", work])
        assert int(loaded.split()[-1]) == count
        return perf_counter() - began

    def singer(self, url: str, count: int) -> float:
        """Time a tap piped into the PostgreSQL target: upsert, its own COPY on, validation of records off."""
        programs = rivals.environment("singer", rivals.SINGER)
        config = self.folder / "target.json"
        address = self.dsn.replace("postgresql://", "postgresql+psycopg://").replace("postgres:@", "postgres@")
        settings = {"load_method": "upsert", "use_copy": True, "validate_records": False}
        config.write_text(json.dumps({"sqlalchemy_url": address, "default_target_schema": "singer", **settings}))
        tap_config = json.dumps({"base_url": url, "fields": dict(records.FIELDS)})
        began = perf_counter()
        with open(os.devnull, "w") as silence:
            tap = subprocess.Popen(
                [str(programs / "python"), str(HERE / "rivals" / "tap_orders.py"), tap_config],
                stdout=subprocess.PIPE,
                stderr=silence,
            )
            target = [str(programs / "target-postgres"), "--config", str(config)]
            subprocess.run(target, stdin=tap.stdout, stdout=silence, stderr=silence, check=True)
        assert tap.wait() == 0
        elapsed = perf_counter() - began
        assert asyncio.run(_scalar(self.dsn, "SELECT count(*) FROM singer.orders")) == count
        return elapsed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="floor,tidegate,dlt,singer")
    parser.add_argument("--memory", type=int, default=0, help="load so many records once and print the peak memory")
    arguments = parser.parse_args()
    with _server() as bench:
        if arguments.memory:
            with _source(arguments.memory) as url, _empty(bench.dsn):
                seconds, peak = bench.worker(url, arguments.memory)
            rate = arguments.memory / seconds
            print(
                f"{arguments.memory:,} records: {rate:,.0f} records/s, peak {peak:.0f} MiB (to stay under {MEMORY_TARGET})"
            )
            return
        _compare(bench, arguments.only.split(","), arguments.records, arguments.rounds)


def _compare(bench: Bench, names: list[str], count: int, rounds: int) -> None:
    contestants: dict[str, Callable[[str, int], float]] = {name: getattr(bench, name) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    start_up = {"floor": 0.0, "tidegate": 0.0}
    with _source(1) as url:
        for name in contestants.keys() - start_up.keys():
            for _ in range(2):  # the first fills caches
                with _empty(bench.dsn):
                    start_up[name] = contestants[name](url, 1)
    for number in range(1, rounds + 1):
        for name, contestant in contestants.items():
            share = count // SHARE.get(name, 1)
            with _source(share) as url, _empty(bench.dsn):
                rates[name].append(share / (contestant(url, share) - start_up[name]))
            print(f"round {number}  {name:10} {rates[name][-1]:9,.0f} records/s", flush=True)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, median in medians.items():
        ratio = medians.get("tidegate", 0) / median
        wanted = f"   Tidegate is {ratio:.2f} times that (to reach: {TARGETS[name]})" if name in TARGETS else ""
        print(f"median   {name:10} {median:9,.0f} records/s{wanted}")


@contextmanager
def _server() -> Iterator[Bench]:
    """Yield the contestants on a fresh embedded server; fails unless its settings are durable."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="tidegate-throughput-") as folder:
        warnings.simplefilter("ignore")
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Path(folder))
        try:
            for name, value in DURABLE.items():
                found = asyncio.run(_scalar(server.dsn, f"SHOW {name}"))
                assert found == value, f"{name} is {found}"
            yield Bench(_database(server.dsn, "bench"), Path(folder))
        finally:
            server.release()


@contextmanager
def _empty(dsn: str) -> Iterator[None]:
    """Make the database anew, and let no contestant pay for another's checkpoint."""
    head = _database(dsn, "postgres")
    for statement in ("DROP DATABASE IF EXISTS bench WITH (FORCE)", "CREATE DATABASE bench", "CHECKPOINT"):
        asyncio.run(_scalar(head, statement))
    yield


@contextmanager
def _source(count: int) -> Iterator[str]:
    """Yield the address of the source in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.throughput.source", str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def _database(dsn: str, name: str) -> str:
    head, _, tail = dsn.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}?{tail}"


async def _scalar(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def _output(command: list[str]) -> str:
    calm = {**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=calm)
    if done.returncode:
        raise RuntimeError(f"{command[:3]} failed:\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()

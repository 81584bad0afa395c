"""Throughput: records per second from a REST source into PostgreSQL, side by side on one machine, in one run.

    python -m benchmarks.throughput [--records 100000] [--rounds 3] [--memory 1000000]
        [--only floor,floor_two,tidegate,updates,dlt,singer,singer_defaults]

Every contestant reads the same pre-rendered pages of 250 records of 25 typed fields from a server in a process of its own
and upserts them by id into an empty database of the same server, whose durable settings are checked. Rounds are interleaved.
No clock runs while a contestant starts and imports; from its CPU that of a load of one record, just before, is taken off. Rates
depend on what else the machine does, CPU per record hardly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import asyncpg
import psutil  # type: ignore[import-untyped]

from benchmarks import peers
from benchmarks.throughput import records
from tidegate.store.embedded import EmbeddedServer

HERE = Path(__file__).parent
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
TARGETS = {"dlt": 10.0, "singer": 15.0, "singer_defaults": 15.0, "floor": 0.6, "floor_two": 0.85}
UPDATES_TARGET = 0.8
MEMORY_TARGET = 150
FLOOR = """
import sys, time, uvloop
from benchmarks.throughput import floor, floor_two
program = {"floor": floor, "floor_two": floor_two}[sys.argv[3]]
began = time.perf_counter()
print(uvloop.run(program.run(sys.argv[1], sys.argv[2])), time.perf_counter() - began)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a load took: seconds by the contestant's clock, and of CPU in its own processes and in the server's."""

    wall: float
    own_cpu: float
    server_cpu: float

    def without(self, start_up: Cost) -> Cost:
        """Return this cost less the CPU of a load of one record just before: interpreter, imports, an empty run."""
        return Cost(self.wall, self.own_cpu - start_up.own_cpu, self.server_cpu - start_up.server_cpu)


class Bench:
    """One server, one folder, and the contestants: each loads a source's records, all in processes of their own."""

    def __init__(self, dsn: str, postmaster: int, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self._postmaster = psutil.Process(postmaster)

    def cost(self, name: str, count: int) -> Cost:
        """Return what ``name`` takes for ``count`` records into an empty database."""
        with _source(count) as url, _empty(self.dsn):
            own, server = _own_cpu(), self._server_cpu()
            seconds: float = getattr(self, name)(url, count)
            return Cost(seconds, _own_cpu() - own, self._server_cpu() - server)

    def _server_cpu(self) -> float:
        """Return the CPU seconds of the server's processes, those that have ended included."""
        own = self._postmaster.cpu_times()
        seconds = own.user + own.system + own.children_user + own.children_system
        for child in self._postmaster.children():
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                seconds += times.user + times.system
        return float(seconds)

    def floor(self, url: str, count: int) -> float:
        """Run the hand-written floor; return its seconds."""
        return self._floor("floor", url, count)

    def floor_two(self, url: str, count: int) -> float:
        """Run the hand-written floor over two connections; return its seconds."""
        return self._floor("floor_two", url, count)

    def _floor(self, name: str, url: str, count: int) -> float:
        done, seconds = _output([sys.executable, "-c", FLOOR, self.dsn, url, name]).split()
        assert int(done) == count
        return float(seconds)

    def updates(self, url: str, count: int) -> float:
        """Run Tidegate's worker twice; return the seconds of the second run, which updates every record (its CPU is of both)."""
        return self.worker(url, count, "again")[0]

    def tidegate(self, url: str, count: int) -> float:
        """Run Tidegate's worker; return the seconds from the engine's start to committed coverage."""
        return self.worker(url, count)[0]

    def worker(self, url: str, count: int, *how: str) -> tuple[float, float]:
        """Run Tidegate's worker; return its seconds and its peak memory in MiB."""
        command = [
            sys.executable,
            "-m",
            "benchmarks.throughput.worker_path",
            self.dsn,
            url,
            str(count),
            str(self.folder),
            *how,
        ]
        seconds, peak = map(float, _output(command).split())
        return seconds, peak

    def dlt(self, url: str, count: int) -> float:
        """Run dlt's REST source and upsert; return the seconds of `pipeline.run`. csv is the faster of its formats here."""
        python = peers.environment("dlt", peers.DLT) / "python"
        work = tempfile.mkdtemp(dir=self.folder)
        dsn = self.dsn.replace("postgres:@/", "postgres:none@localhost:5432/")
        done = _output([str(python), str(HERE / "rivals" / "dlt_pipeline.py"), dsn, url, "csv", work]).split()
        assert int(done[-2]) == count
        return float(done[-1])

    def singer(self, url: str, count: int) -> float:
        """Run a tap piped into the PostgreSQL target: upsert, its own COPY on, validation of records off."""
        return self._singer(url, count, {"load_method": "upsert", "use_copy": True, "validate_records": False})

    def singer_defaults(self, url: str, count: int) -> float:
        """Run the same with no setting of the target's changed: INSERT instead of COPY, every record validated.

        It upserts by key here too: `append-only`, what it calls its default, holds for streams without a key.
        """
        return self._singer(url, count, {})

    def _singer(self, url: str, count: int, settings: dict[str, object]) -> float:
        """Return the seconds from the target's first message, before any record, to its end."""
        programs = peers.environment("singer", peers.SINGER)
        config = self.folder / "target.json"
        address = self.dsn.replace("postgresql://", "postgresql+psycopg://").replace("postgres:@", "postgres@")
        config.write_text(json.dumps({"sqlalchemy_url": address, "default_target_schema": "singer", **settings}))
        tap_config = json.dumps({"base_url": url, "fields": dict(records.FIELDS)})
        tap_command = [str(programs / "python"), str(HERE / "rivals" / "tap_orders.py"), tap_config]
        target_command = [str(programs / "target-postgres"), "--config", str(config)]
        with subprocess.Popen(tap_command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tap:
            with subprocess.Popen(
                target_command, stdin=tap.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as target:
                assert target.stderr is not None
                target.stderr.readline()
                began = perf_counter()
                target.stderr.read()
            elapsed = perf_counter() - began
        assert (tap.returncode, target.returncode) == (0, 0)
        assert asyncio.run(_scalar(self.dsn, "SELECT count(*) FROM singer.orders")) == count
        return elapsed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="floor,floor_two,tidegate,updates,dlt,singer,singer_defaults")
    parser.add_argument("--memory", type=int, default=0, help="load so many records once and print the peak memory")
    arguments = parser.parse_args()
    with _server() as bench:
        if arguments.memory:
            with _source(arguments.memory) as url, _empty(bench.dsn):
                peak = bench.worker(url, arguments.memory)[1]
            print(f"{arguments.memory:,} records: peak {peak:.0f} MiB in the worker (to stay under {MEMORY_TARGET})")
            return
        _compare(bench, arguments.only.split(","), arguments.records, arguments.rounds)


def _compare(bench: Bench, names: list[str], count: int, rounds: int) -> None:
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    print(f"{'records/s':>34}   CPU µs/record: own  server")
    for number in range(1, rounds + 1):
        for name in names:
            start_up = bench.cost(name, 1)
            costs[name].append(bench.cost(name, count).without(start_up))
            _print(f"round {number}", name, costs[name][-1], count)
    medians = {name: Cost(*map(median, zip(*map(astuple, found), strict=True))) for name, found in costs.items()}
    for name, cost in medians.items():
        _print("median ", name, cost, count)
    for name, target in TARGETS.items():
        if name in medians and "tidegate" in medians:
            ratio = medians[name].wall / medians["tidegate"].wall
            print(f"Tidegate's rate is {ratio:.2f} times that of {name} (to reach: {target})")
    if {"tidegate", "updates"} <= medians.keys():
        ratio = medians["tidegate"].wall / medians["updates"].wall
        print(f"Updates reach {ratio:.2f} of the rate of inserts (to reach: {UPDATES_TARGET})")


def _print(label: str, name: str, cost: Cost, count: int) -> None:
    own, server = cost.own_cpu / count * 1e6, cost.server_cpu / count * 1e6
    print(f"{label}  {name:15} {count / cost.wall:9,.0f}   {own:14.1f} {server:7.1f}", flush=True)


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
            postmaster = int(next(Path(folder).rglob("postmaster.pid")).read_text().split()[0])
            yield Bench(_database(server.dsn, "bench"), postmaster, Path(folder))
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


def _own_cpu() -> float:
    """Return the CPU seconds of all processes of ours that have ended; the source's are not waited for until later."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _output(command: list[str]) -> str:
    calm = {**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=calm)
    if done.returncode:
        raise RuntimeError(f"{command[:3]} failed:\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()

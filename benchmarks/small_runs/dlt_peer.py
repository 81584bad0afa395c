"""One dlt pipeline that finds nothing new, again and again in one process; prints the seconds a run took.

Run by ``python -m benchmarks.small_runs`` with the Python of the peers' own environment.
"""

import sys
import tempfile
from time import perf_counter

import dlt
import requests


COLUMNS = {"id": {"data_type": "bigint"}, "updated_at": {"data_type": "timestamp"}}


def main(url: str, runs: int) -> None:
    """Run the pipeline once to warm up, then ``runs`` times."""
    session = requests.Session()

    @dlt.resource(name="orders", primary_key="id", write_disposition="merge", columns=COLUMNS)
    def orders(updated_at=dlt.sources.incremental("updated_at", initial_value="2026-01-01T00:00:00Z")):
        reply = session.get(f"{url}/orders", params={"updated_since": updated_at.last_value}, timeout=10)
        yield reply.json()["data"]

    with tempfile.TemporaryDirectory() as folder:
        destination = dlt.destinations.duckdb(f"{folder}/warehouse.duckdb")
        pipeline = dlt.pipeline("small_runs", pipelines_dir=folder, destination=destination, dataset_name="peer")
        pipeline.run(orders())
        began = perf_counter()
        for _ in range(runs):
            pipeline.run(orders())
        print((perf_counter() - began) / runs)


main(sys.argv[1], int(sys.argv[2]))

# mypy: ignore-errors
"""dlt, run in an environment of its own: its declarative REST source, incremental on updated_at, upserted by id.

`python dlt_pipeline.py DSN BASE_URL FILE_FORMAT WORK_DIR`; prints the number of rows in its table and the seconds taken.
"""

import sys
from time import perf_counter

import dlt
from dlt.destinations import postgres
from dlt.sources.rest_api import rest_api_source


def main(dsn: str, base_url: str, file_format: str, work_dir: str) -> None:
    """Load everything once."""
    source = rest_api_source(
        {
            "client": {"base_url": base_url, "paginator": {"type": "page_number", "base_page": 1, "total_path": None}},
            "resources": [
                {
                    "name": "orders",
                    "primary_key": "id",
                    "write_disposition": {"disposition": "merge", "strategy": "upsert"},
                    "endpoint": {
                        "path": "orders",
                        "data_selector": "orders",
                        "incremental": {
                            "start_param": "since",
                            "cursor_path": "updated_at",
                            "initial_value": "2000-01-01T00:00:00Z",
                        },
                    },
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        "throughput", destination=postgres(credentials=dsn), dataset_name="dlt_data", pipelines_dir=work_dir
    )
    began = perf_counter()
    pipeline.run(source, loader_file_format=file_format)
    elapsed = perf_counter() - began
    with pipeline.sql_client() as client, client.execute_query("SELECT count(*) FROM orders") as cursor:
        print(cursor.fetchone()[0], elapsed)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`tidegate query`: the records can be looked at, and nothing can be changed by it (SPEC 8)."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.test_commands import in_database


@pytest.fixture
def synced(cli: CommandLine) -> CommandLine:
    """The command line, when 45 orders are there."""
    cli.apply()
    cli.ok("run", "acme/orders")
    return cli


def test_a_select_shows_the_records_without_naming_a_schema(synced: CommandLine) -> None:
    shown = synced.ok("query", "select id, updated_at from shop_orders order by id limit 2")
    assert [line.split() for line in shown.splitlines()] == [
        ["id", "updated_at"],
        ["1", "2026-05-01T01:00:00Z"],
        ["2", "2026-05-01T02:00:00Z"],
    ]
    found = synced.json("query", "select count(*) as orders, max(updated_at) as newest from shop_orders")
    assert found == {"rows": [{"orders": 45, "newest": "2026-05-02T21:00:00Z"}], "more": False}


def test_tidegates_own_tables_are_there_by_their_full_name(synced: CommandLine) -> None:
    assert synced.json("query", "select state from tidegate.runs")["rows"] == [{"state": "succeeded"}]


def test_without_sql_it_lists_the_tables(synced: CommandLine) -> None:
    (table,) = synced.json("query")["rows"]
    assert table["table"] == "shop.shop_orders"
    assert {"id", "updated_at", "tenant_id"} <= set(table["columns"].split(", "))
    assert "shop.shop_orders" in synced.ok("query")


def test_it_says_where_nothing_is_yet(cli: CommandLine) -> None:
    assert "No tables yet" in cli.ok("query")
    assert cli.ok("query", "select 1 where false") == "No rows.\n"


@pytest.mark.parametrize(
    "statement",
    [
        "delete from shop_orders",
        "update tidegate.runs set state = 'failed'",
        "create table mine (id int)",
        "with gone as (delete from shop_orders returning id) select * from gone",
        "select 1; drop table shop_orders",
        "commit; delete from shop_orders",
        "set transaction read write",
        "commit",
        "select lo_create(0)",
        "truncate shop_orders",
    ],
)
def test_nothing_can_be_changed_by_it(synced: CommandLine, statement: str) -> None:
    synced("query", statement)
    assert synced("query", f"{statement} ", "--json").exit_code in (0, 2)
    assert synced.json("query", "select count(*) as n from shop_orders")["rows"] == [{"n": 45}]
    assert synced.json("query", "select state from tidegate.runs")["rows"] == [{"state": "succeeded"}]
    assert len(synced.json("query")["rows"]) == 1
    assert synced.json("query", "select count(*) as n from pg_largeobject_metadata")["rows"] == [{"n": 0}]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("select nothing from shop_orders", "nothing"),
        ("select * from no_such_table", "no_such_table"),
        ("selekt 1", "selekt"),
        ("select 1/0", "division by zero"),
        ("select 'a'::int", "invalid input syntax"),
        ("delete from shop_orders returning id", "read-only"),
        ("delete from shop_orders", "shows no rows"),
        (";", "shows no rows"),
        ("select '4713-01-01 BC'::timestamptz", "cannot be shown"),
        ("select '0001-01-01'::date - 1", "cannot be shown"),
        ("select 1; select 2", "multiple commands"),
        ("select $1::int", "SQL"),
        ("select 1 as a, 2 as a", "two columns"),
    ],
)
def test_what_postgresql_refuses_is_bad_input(synced: CommandLine, statement: str, said: str) -> None:
    """SPEC 8: 2, with the remedy."""
    result = synced("query", statement, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    told = json.loads(result.stderr)
    assert said in told["message"]
    assert told["remedy"]


def test_a_query_that_takes_too_long_has_failed(synced: CommandLine) -> None:
    """SPEC 8: 1 is that the work failed."""
    result = synced("query", "select pg_sleep(20)", "--timeout", "0.05")
    assert result.exit_code == 1
    assert "took longer than 0.05 s" in result.stderr
    assert "--timeout" in result.stderr


def test_many_rows_are_cut_and_it_says_so(synced: CommandLine) -> None:
    result = synced("query", "select id from shop_orders", "--limit", "7")
    assert len(result.stdout.splitlines()) == 8
    assert "more than these 7 rows" in result.stderr
    found = synced.json("query", "select id from shop_orders", "--limit", "7")
    assert (len(found["rows"]), found["more"]) == (7, True)
    assert synced.json("query", "select id from shop_orders", "--limit", "45")["more"] is False


def test_rows_wider_than_the_screen_are_shown_one_by_one(synced: CommandLine) -> None:
    """So that `select *` of a real table can be read."""
    shown = synced.ok("query", "select *, repeat('x', 300) as note from shop_orders order by id limit 2").splitlines()
    assert [line for line in shown if line.startswith("row")] == ["row 1", "row 2"]
    assert any(line.split() == ["updated_at", "2026-05-01T02:00:00Z"] for line in shown)


def test_every_type_can_be_shown(synced: CommandLine) -> None:
    """Also those that JSON does not know; SQL may come from standard input."""
    statement = """select null as n, true as b, 1.50::numeric as d, 'NaN'::float8 as f,
        '{"a": [1]}'::jsonb as j, array[1, 2] as a, interval '1 day' as i, date '2026-05-01' as on, '10.0.0.0/8'::cidr as c,
        'a'::bytea as y,
        int4range(1, 3) as r,
        'infinity'::timestamptz as e, row(1, 'x') as w, point(1, 2) as p, '[bold]' as m, timestamp '2026-05-01 00:00' as l"""
    (row,) = synced.json("query", statement)["rows"]
    assert (row["n"], row["b"], row["d"], row["j"], row["a"], row["on"]) == (
        None,
        True,
        "1.50",
        {"a": [1]},
        [1, 2],
        "2026-05-01",
    )
    result = synced("query", "-", typed=statement)
    assert result.exit_code == 0
    assert "[bold]" in result.stdout
    assert '{"a":[1]}' in result.stdout


def test_no_program_is_started_by_it(synced: CommandLine) -> None:
    """It changes nothing: PostgreSQL lets a superuser start one in a read-only transaction."""
    mark = synced.folder / "mark"
    result = synced("query", f"copy (select 1) to program 'touch {mark}'")
    assert (result.exit_code, mark.exists()) == (2, False)
    assert synced("query", f"copy (select 1) to '{mark}'").exit_code == 2
    assert not mark.exists()


def test_records_are_shown_as_they_are_and_do_not_steer_the_terminal(synced: CommandLine) -> None:
    statement = """select 'root:x:0' as a, e'\\x1b[2J\\u009b' as b, '{"a": "\x7f"}'::jsonb as c"""
    shown = synced.ok("query", statement)
    assert shown.splitlines()[1].split() == ["root:x:0", "\ufffd[2J\ufffd", '{"a":"\ufffd"}']


def test_a_schema_of_any_name_is_found(synced: CommandLine) -> None:
    in_database(synced, """update tidegate.destinations set settings = '{"schema": "Odd \\"one\\", two"}'""")
    in_database(synced, """alter schema shop rename to "Odd ""one"", two" """)
    assert synced.json("query", "select count(*) as n from shop_orders")["rows"] == [{"n": 45}]

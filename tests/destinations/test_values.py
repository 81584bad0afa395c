"""Every type and every hostile value: held exactly, set aside or quarantined, never dropped (SPEC 4, 5)."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.destinations.loading import LISTED, ORDERS, TABLE, Pool, Run, at, column_types, local, page, rows, target
from tidegate.destinations.base import Written
from tidegate.domain.cursor import CursorField, CursorFormat
from tidegate.domain.stream import ColumnType, Stream

ONE = b'{"id": 1, "updated_at": "2026-07-01T00:00:00Z", "value": %b}'


def load(
    url: str, *batches: list[object], stream: Stream = ORDERS
) -> tuple[list[Written], list[dict[str, Any]], dict[str, str]]:
    """Deliver each of ``batches`` as one page of one run; return the counts, the rows and the columns' types."""

    async def run() -> tuple[list[Written], list[dict[str, Any]], dict[str, str]]:
        async with local(url) as (destination, pool):
            run = Run(destination.writer(target(stream), 1, 1))
            written = [await run.write(page(*records, requested=n)) for n, records in enumerate(batches)]
            return written, await rows(pool), await column_types(pool)

    return asyncio.run(run())


def test_types_are_inferred_exactly_and_strings_stay_text(database_url: str) -> None:
    """SPEC 5: columns come from the data. Integers bigint, other numbers numeric, strings never guessed to be dates."""
    record = {
        "id": 1, "updated_at": at(0), "whole": 9223372036854775807, "flag": True, "word": "2026-07-01",
        "list": [1, {"a": None}], "object": {"b": "c"}, "nothing": None,
    }  # fmt: skip
    number = b'{"id": 2, "updated_at": "2026-07-01T00:00:00Z", "exact": 1.10000000000000000000000000000000000000001}'
    _, found, types = load(database_url, [record, number])
    assert types | {"id": "bigint", "updated_at": "timestamp with time zone"} == types
    assert [types[name] for name in ("whole", "flag", "word", "list", "object", "exact")] == [
        "bigint", "boolean", "text", "jsonb", "jsonb", "numeric",
    ]  # fmt: skip
    assert "nothing" not in types
    assert found[0]["whole"] == 2**63 - 1
    assert json.loads(found[0]["list"]) == [1, {"a": None}]
    assert found[1]["exact"] == Decimal("1.10000000000000000000000000000000000000001")
    assert (found[0]["tenant_id"], found[0]["account_id"], found[0]["_tidegate_run_id"]) == ("acme", "acme-shop", 1)


def test_integers_among_other_numbers_make_one_numeric_column_and_mixtures_jsonb(database_url: str) -> None:
    """A first batch is looked at as a whole: the first record's accidental type does not decide."""
    batch: list[object] = [
        {"id": 1, "updated_at": at(0), "price": 10, "mixed": "a"},
        {"id": 2, "updated_at": at(0), "price": 10.5, "mixed": 5},
    ]
    written, found, types = load(database_url, batch)
    assert (types["price"], types["mixed"]) == ("numeric", "jsonb")
    assert [row["price"] for row in found] == [Decimal(10), Decimal("10.5")]
    assert [row["mixed"] for row in found] == ['"a"', "5"]
    assert written[0].misfits == 0


def test_declared_columns_come_first_and_numbers_as_strings_fit_numeric(database_url: str) -> None:
    """SPEC 5, declared types: money as strings, instants and dates as such."""
    columns = {"total": ColumnType.NUMERIC, "paid_at": ColumnType.TIMESTAMP, "due_on": ColumnType.DATE,
               "ratio": ColumnType.DOUBLE, "raw": ColumnType.JSON}  # fmt: skip
    stream = Stream("orders", cursor=CursorField(("updated_at",)), columns=columns)
    record = {"id": 1, "updated_at": at(0), "total": "10.50", "paid_at": "2026-07-01T02:00:00.1234567+02:00",
              "due_on": "2026-07-31", "ratio": 0.1, "raw": "text"}  # fmt: skip
    _, found, types = load(database_url, [record], stream=stream)
    assert [types[name] for name in columns] == [
        "numeric", "timestamp with time zone", "date", "double precision", "jsonb",
    ]  # fmt: skip
    assert found[0]["total"] == Decimal("10.50")
    assert found[0]["paid_at"] == datetime(2026, 7, 1, 0, 0, 0, 123456, tzinfo=UTC)
    assert (found[0]["due_on"], found[0]["ratio"], found[0]["raw"]) == (date(2026, 7, 31), 0.1, '"text"')


@pytest.mark.parametrize(
    "text",
    [
        "", "None", "\\N", "\\.", "\\", "tab\there", "line\nbreak\r\n", "\x01\x1f\x7f", 'quote"s', "\\None", "\\x41",
        "é \u2028 \U0001f600 \x85", " spaces ", "NULL", "NaN", "Infinity", "x" * 1_000_000, "\\t", "a\\\\b", "\N{BOM}",
    ],
)  # fmt: skip
def test_text_comes_back_as_it_was_sent(database_url: str, text: str) -> None:
    """COPY's own marks (null, end of data, escapes) are nothing special in data, on either way through."""
    others: list[object] = [
        {"id": n, "updated_at": at(0), "value": v, "amount": 1.5} for n, v in ((2, "plain"), (3, None))
    ]
    record = {"id": 1, "updated_at": at(0), "value": text, "amount": 2.5}
    written, found, _ = load(database_url, [record, *others], [record, *others])
    assert [row["value"] for row in found] == [text, "plain", None]
    assert [(w.inserted, w.updated, w.unchanged, w.misfits) for w in written] == [(3, 0, 0, 0), (0, 0, 3, 0)]


@pytest.mark.parametrize(
    ("first", "raw"),
    [
        (b"1", b"1000000000000000000000000000000"), (b"1", b"1.5"), (b"1", b"1.0"), (b"1", b'"1"'), (b"1", b"true"),
        (b'"a"', b"5"), (b'"a"', b'{"b": 1}'), (b'"a"', b'"\\u0000"'), (b'"a"', b'"x\\ud800y"'), (b'"a"', b'"\\udc00"'),
        (b"1.5", b"1e200000"), (b"1.5", b"1e-20000"), (b"1.5", b'"NaN"'), (b"1.5", b'"-inf"'), (b"1.5", b'"abc"'),
        (b"true", b'"yes"'), (b"{}", b'{"a": "\\u0000"}'), (b"{}", b'["\\ud800"]'), (b"{}", b'{"a": 1e999999}'),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_kept_in_the_side_column(database_url: str, first: bytes, raw: bytes) -> None:
    """SPEC 5: kept as written, counted, the row delivered, the rest of its page untouched."""
    good = ONE.replace(b'"id": 1', b'"id": 2')
    written, found, _ = load(database_url, [ONE % first], [ONE % raw, good % first], [ONE % raw, good % first])
    assert [(w.read, w.misfits, len(w.quarantined)) for w in written] == [(1, 0, 0), (2, 1, 0), (2, 1, 0)]
    assert (found[0]["value"], found[0]["_tidegate_misfits"]) == (None, f'{{"value": {raw.decode()}}}')
    assert found[1]["value"] is not None
    assert found[1]["_tidegate_misfits"] is None
    assert written[1].updated == 1
    assert written[2].unchanged == 2, "the same misfit again is the same version"


@pytest.mark.parametrize("raw", [b"NaN", b"Infinity", b'"\xff\xfe"', b"[" * 50_000 + b"]" * 50_000])
def test_what_no_decoder_takes_is_kept_as_a_string(database_url: str, raw: bytes) -> None:
    """SPEC 4: one poison value must not stop a tenant."""
    written, found, _ = load(database_url, [ONE % b"1.5"], [ONE % raw])
    assert written[1].misfits == 1
    assert isinstance(json.loads(found[0]["_tidegate_misfits"])["value"], str)


def test_huge_numbers_and_deep_nesting_that_fit_are_held_exactly(database_url: str) -> None:
    """1e400 is no infinity, 10**30 no float, 500 levels no recursion error."""
    deep = b"[" * 500 + b"]" * 500
    record = b'{"id": 1, "updated_at": "2026-07-01T00:00:00Z", "huge": 1e400, "big": 1%b, "deep": %b}'
    written, found, types = load(database_url, [record % (b"0" * 30, deep)])
    assert written[0].misfits == 0
    assert (found[0]["huge"], found[0]["big"]) == (Decimal(10) ** 400, Decimal(10) ** 30)
    assert types["big"] == "numeric"
    assert found[0]["deep"] == deep.decode()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"7", "not an object"), (b"null", "not an object"), (b"[]", "not an object"), (b'"a"', "not an object"),
        (b"{}", "key 'id' is missing"), (b'{"id": null, "updated_at": "2026-07-01T00:00:00Z"}', "key 'id' is null"),
        (b'{"id": {}, "updated_at": "2026-07-01T00:00:00Z"}', "key 'id' is not a string or a number"),
        (b'{"id": "a\\u0000", "updated_at": "2026-07-01T00:00:00Z"}', "NUL"),
        (b'{"id": "a", "updated_at": "2026-07-01T00:00:00Z"}', "which holds 64-bit integers"),
        (b'{"id": 1.5, "updated_at": "2026-07-01T00:00:00Z"}', "which holds 64-bit integers"),
        (b'{"id": 9223372036854775808, "updated_at": "2026-07-01T00:00:00Z"}', "which holds 64-bit integers"),
        (b'{"id": "\xc2\xb2", "updated_at": "2026-07-01T00:00:00Z"}', "which holds 64-bit integers"),
        (b'{"id": 9}', "cursor value 'updated_at' is missing"),
        (b'{"id": 9, "updated_at": null}', "cursor value 'updated_at' cannot be read"),
        (b'{"id": 9, "updated_at": "yesterday"}', "cursor value 'updated_at' cannot be read"),
        (b'{"id": 9, "updated_at": "2026-07-01T00:00:00"}', "cursor value 'updated_at' cannot be read"),
        (b'{"id": 9, "updated_at": "2026-02-30T00:00:00Z"}', "cursor value 'updated_at' cannot be read"),
        (b'{"id": 9, "updated_at": "0001-01-01T00:00:00+14:00"}', "cursor value 'updated_at' cannot be read"),
        (b'{"id": 9, "updated_at": 1e999}', "cursor value 'updated_at' cannot be read"),
        (b'{"\\ud800": 1, "id": "x"}', "which holds 64-bit integers"),
    ],
)  # fmt: skip
def test_a_record_without_key_or_cursor_value_goes_to_quarantine_alone(
    database_url: str, record: bytes, reason: str
) -> None:
    """SPEC 4, HOLE d: with its reason and its own bytes; the rest of the page is delivered."""
    good: object = {"id": 1, "updated_at": at(0)}
    written, found, _ = load(database_url, [good], [record, {"id": 2, "updated_at": at(0)}])
    assert written[1].inserted == 1
    assert [q.record for q in written[1].quarantined] == [record]
    assert reason in written[1].quarantined[0].reason
    assert [row["id"] for row in found] == [1, 2]


def test_keys_are_their_spelling_whatever_their_type(database_url: str) -> None:
    """A source that starts to send its numbers as strings goes on updating the same rows."""
    first, second = {"id": 7, "updated_at": at(0)}, {"id": "7", "updated_at": at(1), "note": "same"}
    written, found, _ = load(database_url, [first], [second])
    assert (written[1].updated, written[1].inserted) == (1, 0)
    assert [(row["id"], row["note"]) for row in found] == [(7, "same")]


def test_text_keys_take_quotes_numbers_and_the_word_none(database_url: str) -> None:
    """Keys with quotes, tabs and backslashes; numbers by their spelling; ordered without a collation."""
    keys = ['a"b', "c'd", "tab\t", "back\\slash", "None", "ä", "", 12]
    records: list[object] = [{"id": key, "updated_at": at(0)} for key in keys]
    written, found, types = load(database_url, records, records)
    assert types["id"] == "text"
    assert [(w.inserted, w.unchanged) for w in written] == [(8, 0), (0, 8)]
    assert {row["id"] for row in found} == {str(key) for key in keys}


def test_nested_keys_and_cursor_values_have_columns_and_rules_of_their_own(database_url: str) -> None:
    """Dotted paths (SPEC 4): the record's own columns stay beside them."""
    stream = Stream("orders", key=("node.id", "line"), cursor=CursorField(("node", "at"), CursorFormat.EPOCH_SECONDS))
    batch: list[object] = [{"node": {"id": "a", "at": 1_000_000_000 + n}, "line": n % 2, "n": n} for n in range(4)]

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            written = await Run(destination.writer(target(stream), 1, 1)).write(
                page(*batch, {"node": {"at": 1}, "line": 0})
            )
            assert (written.inserted, written.unchanged, len(written.quarantined)) == (2, 2, 1)
            found = await rows(pool, '"node.id", line, n, node', order="line")
            assert [(row["node.id"], row["line"], row["n"]) for row in found] == [("a", 0, 2), ("a", 1, 3)]

    asyncio.run(run())


def test_a_record_that_postgresql_itself_refuses_is_found_and_quarantined(database_url: str) -> None:
    """SPEC 4: one poison record must not stop a tenant, even one that only a constraint of the operator knows of."""

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            run = Run(destination.writer(target(LISTED), 1, 1))
            await run.write(page({"id": 0, "n": 0}))
            await pool.execute(f"ALTER TABLE {TABLE} ADD CHECK (n <> 13 AND n <> 77)")
            written = await run.write(
                page(*({"id": n, "n": n} for n in range(50))), page(*({"id": n, "n": n} for n in range(50, 100)))
            )
            assert (written.read, written.inserted, written.unchanged) == (100, 97, 1)
            assert sorted(json.loads(q.record)["n"] for q in written.quarantined) == [13, 77]
            assert all("check constraint" in q.reason for q in written.quarantined)
            assert run.ledger.entries[-1] == written

    asyncio.run(run())


def test_a_row_too_wide_for_a_page_is_quarantined_and_columns_beyond_1600_go_to_the_side_column(
    database_url: str,
) -> None:
    """The two limits of a PostgreSQL table: 8 kB of fixed-width columns in one row, 1,600 columns."""

    async def run(pool: Pool, writer: Run) -> None:
        everything = {"id": 1, **{f"f{n:04}": n for n in range(1_700)}}
        few = {"id": 2, "f0000": 1, "f1699": "late"}
        written = await writer.write(page(everything, few))
        assert (written.inserted, len(written.quarantined)) == (1, 1)
        assert "row is too big" in written.quarantined[0].reason
        found = await rows(pool, "id, f0000, _tidegate_misfits")
        assert len(await column_types(pool)) == 1_600
        assert (found[0]["id"], found[0]["_tidegate_misfits"]) == (2, '{"f1699": "late"}')
        assert (await writer.write(page(few, requested=1))).unchanged == 1

    async def main() -> None:
        async with local(database_url) as (destination, pool):
            await run(pool, Run(destination.writer(target(LISTED), 1, 1)))

    asyncio.run(main())

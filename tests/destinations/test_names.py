"""Names: never two tables or two columns under one name, however hostile the names of a source (SPEC 5)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.destinations.loading import LISTED, Run, column_types, local, page, rows, target
from tidegate.destinations.postgres.names import MAX_BYTES, check_schema, column_name, quoted, table_name
from tidegate.domain.errors import InvalidInput

WORDS = st.text("ab_", max_size=5) | st.text(max_size=80)


@given(st.sets(WORDS | st.sampled_from(["tenant_id", "ctid", "_tidegate_hash", "x" * 63, "x" * 64, ""]), min_size=2))
def test_different_fields_have_different_columns(fields: set[str]) -> None:
    """Long names are hashed before PostgreSQL would cut them."""
    columns = [column for field in fields if (column := column_name(field)) is not None]
    assert len(set(columns)) == len(columns)
    assert all(0 < len(column.encode()) <= MAX_BYTES for column in columns)
    assert not {"tenant_id", "account_id", "ctid", "_tidegate_hash"} & set(columns)


@given(st.tuples(WORDS, WORDS), st.tuples(WORDS, WORDS))
def test_different_streams_have_different_tables(one: tuple[str, str], two: tuple[str, str]) -> None:
    """(a_b, c) is not (a, b_c)."""
    assert (table_name(*one) == table_name(*two)) == (one == two)
    assert len(table_name(*one).encode(errors="surrogatepass")) <= MAX_BYTES


def test_the_usual_names_stay_as_they_are() -> None:
    """Case is preserved; a field's column is the field."""
    assert table_name("shopify", "order_lines") == "shopify_order_lines"
    assert table_name("my_shop", "orders") == "my_shop__orders"
    assert [column_name(name) for name in ("createdAt", "total price", "order", 'a"b')] == [
        "createdAt", "total price", "order", 'a"b',
    ]  # fmt: skip
    assert quoted('a"b') == '"a""b"'


def test_every_field_name_keeps_its_value(database_url: str) -> None:
    """Reserved words, quotes, long names with one beginning, ours, PostgreSQL's own, empty, NUL: each value is somewhere."""
    names = [
        "select", "user", 'quo"te', "apo'stroph", "back\\slash", "tenant_id", "account_id", "_tidegate_hash", "ctid", "xmin",
        "", " ", "é" * 40, "x" * 64, "x" * 65, "ID", "Id", "a.b", "%s", "{r}", "$1", "tab\t", "order_0123456789ab",
    ]  # fmt: skip
    record = {"id": 1, **{name: f"value of {number}" for number, name in enumerate(names)}, "n\0": "in the side column"}

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            run = Run(destination.writer(target(LISTED), 1, 1))
            written = await run.write(page(record))
            assert (written.inserted, written.misfits) == (1, 1)
            found = (await rows(pool))[0]
            for number, name in enumerate(names):
                assert found[column_name(name) or ""] == f"value of {number}"
            assert found["_tidegate_misfits"] == '{"n\\u0000": "in the side column"}'
            types = await column_types(pool)
            later = Run(type(destination)(pool).writer(target(LISTED), 2, 1), run_id=2)
            assert (await later.write(page(record, requested=1))).unchanged == 1
            assert await column_types(pool) == types

    asyncio.run(run())


@pytest.mark.parametrize(
    "name", ["", "x" * 64, "ü" * 32, "pg_shop", "information_schema", "a\x00b", "a\nb", "\ud800", 5, None, ["a"]]
)
def test_a_schema_that_postgresql_cannot_have_or_would_cut_is_refused(name: object) -> None:
    """SPEC 5: cut to 63 bytes two schemas become one; the others fail at the first run, long after `apply` said yes."""
    with pytest.raises(InvalidInput, match=r"settings\.schema"):
        check_schema(name)


@pytest.mark.parametrize("name", ["shop", "Shop", "x" * 63, 'a "quoted" one', "ü", "public"])
def test_any_other_schema_is_taken_as_it_is(name: str) -> None:
    assert check_schema(name) == name

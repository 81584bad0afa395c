"""An edit between two pages moves a record in a listing that is ordered by change (HOLE gg, SPEC 4)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import web

from tests.connectors.rest.sources import Handler, declaration, fetched, replied
from tidegate.domain.fetch import Page

SIZE = 2
PAGERS = ["{type: page, param: page, total_pages: pages}", "{type: offset, param: offset, total_records: total}"]
Record = dict[str, object]


def _source(records: list[Record], edited: tuple[int, ...]) -> Handler:
    """A source ordered by `updated_at`; after the first reply the records ``edited`` are edited, one after the other."""
    replies = 0

    async def source(request: web.Request) -> web.Response:
        nonlocal replies
        replies += 1
        records.sort(key=lambda record: str(record["updated_at"]))
        start = int(request.query.get("offset", (int(request.query.get("page", 1)) - 1) * SIZE))
        shown = records[start : start + SIZE]
        reply = replied({"data": shown, "total": len(records), "pages": -(-len(records) // SIZE)})
        for second, number in enumerate(edited if replies == 1 else ()):
            next(record for record in records if record.get("id") == number)["updated_at"] = (
                f"2026-07-13T15:00:{second:02}Z"
            )
        return reply

    return source


def _listed(pager: str, records: list[Record], edited: tuple[int, ...]) -> list[Page]:
    yaml = declaration(
        f"    path: /orders\n    records: data\n    pager: {pager}\n    cursor: {{field: updated_at, ascending: true}}"
    )
    return asyncio.run(fetched(_source(records, edited), yaml))


def _orders(*numbers: int | None) -> list[Record]:
    made: list[Record] = []
    for minute, number in enumerate(numbers):
        made.append({"updated_at": f"2026-07-13T14:{minute:02}:00Z"} | ({} if number is None else {"id": number}))
    return made


@pytest.mark.parametrize("pager", PAGERS)
def test_the_last_record_of_a_page_edited_onto_the_next_hides_no_other(pager: str) -> None:
    """HOLE gg: 1 2 | 3, then 1 and 2 are edited: 3 1 | 2. Record 3 is on the page already read, and 2 says all is well."""
    pages = _listed(pager, _orders(1, 2, 3), (1, 2))
    assert _shown(pages) >= {1, 2, 3} or pages[-1].report.shortfall


@pytest.mark.parametrize("pager", PAGERS)
def test_a_record_without_a_key_at_the_end_of_a_page_does_not_switch_the_check_off(pager: str) -> None:
    """HOLES d, gg: 1 x | 3 4 | 5, then 1 is edited: x 3 | 4 5 | 1. One poison record must not cost a sound one."""
    pages = _listed(pager, _orders(1, None, 3, 4, 5), (1,))
    assert _shown(pages) >= {1, 3, 4, 5} or pages[-1].report.shortfall


def _shown(pages: list[Page]) -> set[object]:
    return {record.get("id") for page in pages for record in msgspec.json.decode(page.records, type=list[Record])}

"""The HubSpot declaration against a double of the search interface, with the limits that its documentation states."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from tests.connectors.rest.sources import LeapingClock, ids, replied, serve
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.registry import find_connector
from tidegate.domain.errors import RateLimited
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.period import Period

START = datetime(2026, 7, 13, 12, tzinfo=UTC)
SECRETS = {"client_id": "id-0123456789", "client_secret": "secret-0123456789", "refresh_token": "refresh-0123456789"}
STAMPS = {"contacts": "lastmodifieddate", "companies": "hs_lastmodifieddate", "deals": "hs_lastmodifieddate"}


@dataclass
class Account:
    """Records by the millisecond of their last edit after START. ``ceiling`` stands for HubSpot's 10,000."""

    records: dict[int, int]
    ceiling: int = 1000
    limited: int = 0
    searches: int = 0
    edits: list[int] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/oauth/v1/token":
            form = await request.post()
            assert form["grant_type"] == "refresh_token"
            assert {name: form[name] for name in SECRETS} == SECRETS
            assert "Authorization" not in request.headers
            return replied({"access_token": "access-1", "expires_in": 1800, "refresh_token": SECRETS["refresh_token"]})
        assert request.headers["Authorization"] == "Bearer access-1"
        self.searches += 1
        if self.searches == self.limited:
            return replied({"policyName": "SECONDLY"}, status=429)
        kind = request.path.split("/")[4]
        answer = self._search(STAMPS[kind], await request.json())
        if self.edits:
            self.records[self.edits.pop()] = max(self.records.values()) + 1
        return answer

    def _search(self, stamp: str, body: dict[str, Any]) -> web.Response:
        assert set(body) <= {"limit", "after", "properties", "filterGroups", "sorts", "query"}
        limit, after = body["limit"], int(str(body.get("after", 0)))
        assert isinstance(limit, int)
        assert limit <= 200
        assert stamp in body["properties"]
        if after + limit > self.ceiling:
            return replied({"category": "VALIDATION_ERROR"}, status=400)
        (sort,), (group,) = body["sorts"], body["filterGroups"]
        assert sort["direction"] == "ASCENDING"
        found = [
            record for record in self.records.items() if all(_holds(one, stamp, record) for one in group["filters"])
        ]
        by_stamp = sort["propertyName"] == stamp
        assert by_stamp or sort["propertyName"] == "hs_object_id"
        found.sort(key=lambda record: (record[1], -record[0]) if by_stamp else (record[0], 0))
        end = after + limit
        more = {"paging": {"next": {"after": str(end)}}} if end < len(found) else {}
        shown = [_record(number, stamp, at) for number, at in found[after:end]]
        return replied({"total": len(found), "results": shown, **more})


def _record(number: int, stamp: str, millisecond: int) -> dict[str, object]:
    at = (START + timedelta(milliseconds=millisecond)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"id": str(number), "properties": {stamp: at, "hs_object_id": str(number)}, "updatedAt": at}


def _holds(condition: dict[str, str], stamp: str, record: tuple[int, int]) -> bool:
    number, at = record
    epoch = round(START.timestamp() * 1000) + at
    has = epoch if condition["propertyName"] == stamp else number
    assert condition["propertyName"] in (stamp, "hs_object_id")
    value = int(condition["value"])
    return {"GTE": has >= value, "GT": has > value, "EQ": has == value}[condition["operator"]]


async def _fetch(account: Account, stream: str, lower: datetime = START) -> list[Page]:
    async with serve(account.answer) as url, open_session(allow_private_addresses=True) as session:
        connection = ConnectionSettings({"base_url": url, "token_url": f"{url}/oauth/v1/token"}, SECRETS)
        source = find_connector("hubspot").open(connection, session, LeapingClock())
        return [page async for page in source.fetch(FetchRequest(stream, lower, None, START + timedelta(days=1)))]


@pytest.mark.parametrize("stream", STAMPS)
def test_nothing_is_lost_beyond_the_ceiling_nor_in_one_millisecond(stream: str) -> None:
    """HOLE w: 3,000 records where one search shows 1,000, and 1,300 of them, an import, of one millisecond."""
    spread = {n: n for n in range(1, 1701)}
    imported = dict.fromkeys(range(5000, 6300), 900)
    account = Account({**spread, **imported})
    pages = asyncio.run(_fetch(account, stream))
    assert {int(str(one)) for one in ids(pages)} == set(account.records)
    assert pages[-1].report.proves(Period(START, START + timedelta(days=1)))
    assert account.searches == len(pages) < 25


def test_records_edited_while_they_are_listed_hide_no_other() -> None:
    """HOLE gg: each edit moves a record to the end, and all behind it one forward."""
    account = Account({**{n: n // 3 for n in range(1, 601)}, **dict.fromkeys(range(5000, 5450), 90)})
    account.edits = [1, 2, 150, 151, 5000, 5001, 5210, 5301]
    pages = asyncio.run(_fetch(account, "contacts"))
    assert {int(str(one)) for one in ids(pages)} == set(account.records)


def test_a_second_period_begins_at_the_millisecond() -> None:
    """HOLE j."""
    account = Account({n: n for n in range(10)})
    shown = {int(str(one)) for one in ids(asyncio.run(_fetch(account, "deals", START + timedelta(milliseconds=4))))}
    assert shown == {4, 5, 6, 7, 8, 9}


def test_too_many_searches_are_a_rate_limit() -> None:
    with pytest.raises(RateLimited):
        asyncio.run(_fetch(Account({1: 1}, limited=1), "contacts"))

"""The GitHub declaration against a double of its lists: order by last edit, Link header, both kinds of rate limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from tests.connectors.rest.sources import LeapingClock, ids, replied, serve
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.registry import find_connector
from tidegate.domain.errors import RateLimited, Unauthorised
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.period import Period

START = datetime(2026, 7, 13, 12, tzinfo=UTC)
LISTS = {
    "/repos/acme/shop/issues": "updated_at",
    "/repos/acme/shop/issues/comments": "updated_at",
    "/repos/acme/shop/pulls/comments": "updated_at",
    "/repos/acme/shop/pulls": "created",
    "/repos/acme/shop/commits": "commit",
}
STREAMS = ["issues", "issue_comments", "pull_comments", "pulls", "commits"]


@dataclass
class Repository:
    """Records by the second of their last edit after START; ``inclusive`` is what ``since`` means here."""

    records: dict[int, int]
    inclusive: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)
    refusal: Callable[[], web.Response] | None = None
    edits: list[int] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(dict(request.query))
        assert request.headers["Authorization"] == "Bearer token-0123456789"
        assert request.headers["X-GitHub-Api-Version"]
        if self.refusal is not None:
            return self.refusal()
        found = self._listed(LISTS[request.path], request)
        size, page = int(request.query["per_page"]), int(request.query["page"])
        more = f'<{request.url.with_query({})}?page={page + 1}>; rel="next", <x>; rel="last"'
        headers = {"Link": more} if page * size < len(found) else {}
        shown = [self._record(number, request.path) for number in found[(page - 1) * size : page * size]]
        if self.edits:
            self.records[self.edits.pop()] = max(self.records.values()) + 1
        return replied(shown, headers)

    def _listed(self, order: str, request: web.Request) -> list[int]:
        if order == "created":
            assert "since" not in request.query
            return sorted(self.records)
        bounds = {name: _second(request.query[name]) for name in ("since", "until") if name in request.query}
        found = [
            number
            for number, at in self.records.items()
            if bounds.get("since", -1) < at + self.inclusive and at <= bounds.get("until", at)
        ]
        if order == "updated_at":
            assert (request.query["sort"], request.query["direction"]) == ("updated", "asc")
        return sorted(found, key=lambda number: (self.records[number], number), reverse=order == "commit")

    def _record(self, number: int, path: str) -> dict[str, object]:
        at = (START + timedelta(seconds=self.records[number])).isoformat().replace("+00:00", "Z")
        if path.endswith("/commits"):
            return {"sha": f"{number:040x}", "id": number, "commit": {"committer": {"date": at}}}
        return {"id": number, "updated_at": at}


def _second(text: str) -> int:
    assert text.endswith("Z")
    return round((datetime.fromisoformat(text) - START).total_seconds())


async def _fetch(
    repository: Repository, stream: str, lower: datetime | None, upper: datetime | None = None
) -> list[Page]:
    async with serve(repository.answer) as url, open_session(allow_private_addresses=True) as session:
        settings = {"base_url": url, "owner": "acme", "repository": "shop"}
        connection = ConnectionSettings(settings, {"token": "token-0123456789"})
        source = find_connector("github").open(connection, session, LeapingClock())
        request = FetchRequest(stream, lower, upper, START + timedelta(days=1))
        return [page async for page in source.fetch(request)]


@pytest.mark.parametrize("inclusive", [True, False], ids=["since is inclusive", "since is exclusive"])
@pytest.mark.parametrize("stream", STREAMS)
def test_everything_since_the_lower_bound_is_shown(stream: str, inclusive: bool) -> None:
    """HOLE j: the documentation says "after"; either meaning loses nothing. 350 records, 130 of them of one second."""
    repository = Repository({**{n: n for n in range(1, 221)}, **dict.fromkeys(range(500, 630), 150)}, inclusive)
    pages = asyncio.run(_fetch(repository, stream, START + timedelta(seconds=100)))
    wanted = {number for number, at in repository.records.items() if at >= 100}
    assert wanted <= set(ids(pages))
    assert pages[-1].report.proves(Period(START + timedelta(seconds=100), START + timedelta(days=1)))


@pytest.mark.parametrize("stream", ["issues", "issue_comments", "pull_comments", "pulls"])
def test_issues_edited_while_they_are_listed_hide_no_other(stream: str) -> None:
    """HOLE gg: page numbers over this list would skip one record for every edit of an earlier one."""
    repository = Repository({n: n // 2 for n in range(1, 451)})
    repository.edits = [7, 120, 121, 260, 330]
    assert set(ids(asyncio.run(_fetch(repository, stream, START)))) == set(range(1, 451))


def test_commits_are_bounded_on_both_sides() -> None:
    repository = Repository({n: n for n in range(1, 101)})
    shown = set(ids(asyncio.run(_fetch(repository, "commits", START, START + timedelta(seconds=50)))))
    assert set(range(1, 50)) <= shown <= set(range(1, 51))


def test_a_quiet_repository_costs_one_request() -> None:
    repository = Repository({n: n for n in range(1, 41)})
    asyncio.run(_fetch(repository, "issues", START))
    assert len(repository.requests) == 1


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (403, {"Retry-After": "60"}, 60.0),
        (429, {"Retry-After": "60"}, 60.0),
        (
            403,
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1783944900", "Date": "Mon, 13 Jul 2026 12:00:00 GMT"},
            900.0,
        ),
        (429, {"X-RateLimit-Remaining": "0"}, 60.0),
        (403, {"X-RateLimit-Remaining": "4711"}, 60.0),
    ],
    ids=["secondary", "secondary 429", "primary", "primary without reset", "secondary in the body only"],
)
def test_both_rate_limits_say_when_to_come_again(status: int, headers: dict[str, str], wait: float | None) -> None:
    """Primary: no request left until the reset, by GitHub's own clock. Secondary: by Retry-After, or a minute."""
    said = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
    repository = Repository(
        {1: 1}, refusal=lambda: web.json_response({"message": said}, status=status, headers=headers)
    )
    with pytest.raises(RateLimited) as caught:
        asyncio.run(_fetch(repository, "issues", START))
    assert caught.value.retry_after_seconds == wait


def test_a_403_with_requests_left_is_an_authorisation_failure() -> None:
    repository = Repository({1: 1}, refusal=lambda: web.Response(status=403, headers={"X-RateLimit-Remaining": "4711"}))
    with pytest.raises(Unauthorised):
        asyncio.run(_fetch(repository, "issues", START))

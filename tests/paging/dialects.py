"""How the small source speaks: every kind of pager and what may stand in its tokens and links, with its declaration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from itertools import permutations, product
from typing import NamedTuple

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from tests.paging.movements import NOW, Order, Record

START = datetime(2026, 7, 13, tzinfo=UTC)
CLOCK = START + timedelta(seconds=NOW - 1)
Headers = CIMultiDictProxy[str]


class Names(Enum):
    """What a token or link is made of."""

    PAGES = "pages"
    OFFSETS = "offsets"
    KEYS = "keys"
    BOOKMARKS = "bookmarks"


class Reply(NamedTuple):
    """All that the fetch learns from one request."""

    page: tuple[Record, ...]
    said: tuple[tuple[str, object], ...] = ()
    status: int = 200


@dataclass(frozen=True)
class Dialect:
    """One kind of listing.

    ``ends``: what says that a page is the last one. ``param``: of the token or the link. ``moves``: a keyset, within ``pager``;
    ``by_key``: with a body for ties. ``shuffles``: records of one value come in any order on each request. ``cursor``: declared.
    """

    pager: str
    ends: str = ""
    order: Order = Order.OLDEST
    names: Names = Names.PAGES
    param: str = "page"
    moves: bool = False
    by_key: bool = False
    shuffles: bool = False
    cursor: bool = True
    dense: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        named = f" of {self.names.value} in {self.param}" if self.pager in ("cursor", "link") else ""
        keyset = "keyset with ties by key, " if self.by_key else "keyset within " if self.moves else ""
        rest = [self.ends] * bool(self.ends) + [self.order.value]
        rest += ["shuffled"] * self.shuffles + ["no cursor"] * (not self.cursor) + ["ids from 1"] * self.dense
        return f"{keyset}{self.pager}{named}, {', '.join(rest)}"

    @property
    def counted(self) -> bool:
        """Whether a page is found by what stands before it."""
        return self.pager in ("page", "offset") or self.names in (Names.PAGES, Names.OFFSETS)

    def yaml(self, size: int) -> str:
        """The declaration."""
        lines = [
            "path: /orders",
            "records: data",
            f"page_size: {{param: limit, value: {size}}}",
            f"pager: {self._pager()}",
        ]
        if self.cursor:
            lines.append(f"cursor: {{field: at, ascending: {str(self.order is Order.OLDEST).lower()}}}")
            lines.append("lower: {param: since, meaning: inclusive}")
        if self.by_key:
            lines += ["method: POST", 'body: {limit: "{limit}", since: "{since}"}']
        stream = "".join(f"    {line}\n" for line in lines)
        return f"name: small\nbase_url: https://small.example\nstreams:\n  orders:\n{stream}"

    def _pager(self) -> str:
        ends = {
            "total": "total_pages: pages" if self.pager == "page" else "total_records: total",
            "records": "total_records: total",
            "header": "total_pages: {header: X-Pages}",
            "more": "has_more: more",
            "link": "next_link: true",
            "refusal": 'past_end: {statuses: [400], text: "past the end"}',
            "url": "url: next",
        }.get(self.ends, "")
        param = "" if self.pager == "link" else f"param: {self.param}"
        token = "token: next" if self.pager == "cursor" else ""
        made = f"{{type: {', '.join(part for part in (self.pager, param, token, ends) if part)}}}"
        if not self.moves:
            return made
        body = 'ties: {param: behind, body: {limit: "{limit}", since: "{since}", behind: "{behind}", tie: true}}'
        return f"{{type: keyset, within: {made}{', ' + body if self.by_key else ''}}}"

    def replies(self, listed: tuple[Record, ...], query: Mapping[str, object], size: int) -> Iterator[Reply]:
        """All that the source may answer; one reply, unless it shuffles."""
        since = query.get("since")
        if self.cursor and since is not None:
            least = (datetime.fromisoformat(str(since)) - START) // timedelta(seconds=1)
            listed = tuple(one for one in listed if one.value >= least)
            if "tie" in query:
                behind = query.get("behind")
                listed = tuple(
                    one for one in listed if one.value == least and (behind is None or one.id > int(str(behind)))
                )
        if not self.shuffles or "tie" in query:
            yield self._reply(listed, query, size)
            return
        yield from dict.fromkeys(self._reply(order, query, size) for order in shuffled(listed))

    def _reply(self, listed: tuple[Record, ...], query: Mapping[str, object], size: int) -> Reply:
        start = self._start(listed, query, size)
        page, further = listed[start : start + size], start + size < len(listed)
        if self.ends == "refusal" and start and not page:
            return Reply((), (), 400)
        return Reply(page, tuple(self._said(listed, start, size, page, further)))

    def _start(self, listed: tuple[Record, ...], query: Mapping[str, object], size: int) -> int:
        text = query.get(self.param)
        if text is None:
            return 0
        names = {"page": Names.PAGES, "offset": Names.OFFSETS, "last_id": Names.KEYS}.get(self.pager, self.names)
        match names:
            case Names.PAGES:
                return (int(str(text)) - 1) * size
            case Names.OFFSETS:
                return int(str(text))
            case Names.KEYS:
                return sum(one.id >= int(str(text)) if self.order.down else one.id <= int(str(text)) for one in listed)
            case Names.BOOKMARKS:
                last = Record(*map(int, str(text).removeprefix("b").split("_")))
                here = self.order.place(last)
                return sum(
                    self.order.place(one) >= here if self.order.down else self.order.place(one) <= here
                    for one in listed
                )

    def _said(
        self, listed: tuple[Record, ...], start: int, size: int, page: tuple[Record, ...], further: bool
    ) -> Iterator[tuple[str, object]]:
        match self.ends:
            case "total" if self.pager == "page":
                yield "pages", -(-len(listed) // size)
            case "total" | "records":
                yield "total", len(listed)
            case "header":
                yield "X-Pages", -(-len(listed) // size)
            case "more":
                yield "more", further
            case "link":
                yield from [("Link", '<x>; rel="next"')] * further
        if further and self.pager in ("cursor", "link"):
            yield from self._next(page, start, size)

    def _next(self, page: tuple[Record, ...], start: int, size: int) -> Iterator[tuple[str, object]]:
        match self.names:
            case Names.PAGES:
                token = f"{start // size + 2}"
            case Names.OFFSETS:
                token = f"{start + size}"
            case Names.KEYS:
                token = f"{page[-1].id}"
            case Names.BOOKMARKS:
                token = f"b{page[-1].id}_{page[-1].value}"
        if self.pager == "cursor":
            yield "next", token
            return
        address = f"/orders?limit={size}&{self.param}={token}"
        yield ("next", address) if self.ends == "url" else ("Link", f'<{address}>; rel="next"')


@lru_cache(maxsize=10_000)
def shuffled(listed: tuple[Record, ...]) -> tuple[tuple[Record, ...], ...]:
    """All orders in which the records of one value may come; the one by their ids first."""
    groups: dict[int, list[Record]] = {}
    for one in listed:
        groups.setdefault(one.value, []).append(one)
    orders = product(*map(permutations, groups.values()))
    return tuple(tuple(one for group in order for one in group) for order in orders)


@lru_cache(maxsize=100_000)
def body(reply: Reply, *, cursor: bool) -> bytes:
    """The reply as JSON."""
    if reply.status != 200:
        return b"that is past the end"
    records = [
        {"id": one.id, "at": (START + timedelta(seconds=one.value)).isoformat()} if cursor else {"id": one.id}
        for one in reply.page
    ]
    return msgspec.json.encode(
        {"data": records, **{name: value for name, value in reply.said if name not in ("Link", "X-Pages")}}
    )


@lru_cache(maxsize=100_000)
def headers(said: tuple[tuple[str, object], ...]) -> Headers:
    """The reply's headers."""
    return CIMultiDictProxy(CIMultiDict({name: str(value) for name, value in said if name in ("Link", "X-Pages")}))

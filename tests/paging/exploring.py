"""All scripts of movements at once: what a fetch does depends on the replies only, so scripts that give the same are one case.

A case is one sequence of replies. The source keeps the set of all shops that could have given the replies so far; before each
further request every one of them may move. The answers that they would give then divide the set, each part is a case of its
own, and in the end every shop of its part must have lost nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import structlog

from tests.paging.dialects import START, Dialect, Reply
from tests.paging.movements import Order, Record, Shop, moves, opened
from tests.paging.source import Opened
from tidegate.domain.errors import SourceError
from tidegate.domain.fetch import Page

MOST_REQUESTS = 150
FOLLOWED = 16  # of so many listings that begin again one is followed to its end

Script = tuple[object, ...]
"""What happened, the latest first: (script before, request, movement)."""
Shops = dict[Shop, tuple[int, Script]]
"""All shops that could have given the replies so far: how many scripts lead there, and one of them."""


class BegunAgain(BaseException):
    """The listing begins again: from there on it is a smaller case of its own."""


class Endless(Exception):
    """A fetch asks on and on."""


@dataclass(frozen=True)
class Loss:
    """A fetch that was called complete and was not: ``lost`` ids, and the script."""

    dialect: str
    size: int
    records: tuple[Record, ...]
    script: tuple[str, ...]
    lost: tuple[int, ...]
    asked: tuple[str, ...]

    def __str__(self) -> str:
        listed = " ".join(f"{one.id}@{one.value}" for one in self.records)
        return "\n    ".join((
            f"{self.dialect}, {self.size} a page: [{listed}] lost {self.lost}", f"script: {'; '.join(self.script)}", *self.asked
        ))  # fmt: skip


@dataclass
class Figures:
    """What was played."""

    scripts: int = 0
    cases: int = 0
    requests: int = 0
    begun: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)
    exceptions: Counter[str] = field(default_factory=Counter)
    most_requests: int = 0

    def add(self, other: Figures) -> None:
        """Count ``other`` too."""
        self.scripts, self.cases, self.requests = (
            self.scripts + other.scripts, self.cases + other.cases, self.requests + other.requests
        )  # fmt: skip
        self.begun += other.begun
        self.ends.update(other.ends)
        self.exceptions.update(other.exceptions)
        self.losses += other.losses
        self.most_requests = max(self.most_requests, other.most_requests)


class Exploration:
    """One list, and every script of up to ``movements`` movements.

    A listing that begins again is a smaller case of its own, which is played as such: of so many one is followed to its end,
    without further movements, or ``whole`` lets each go on with all that may still move. ``kept``: of the cases that lie behind
    a request only this part, by ``chance``.
    """

    def __init__(
        self,
        source: Opened,
        records: tuple[Record, ...],
        movements: int,
        *,
        whole: bool = False,
        chance: random.Random | None = None,
        kept: float = 1.0,
    ) -> None:
        self._source, self._records, self._whole = source, records, whole
        self._chance, self._kept, self._movements = chance, kept, movements
        self.figures = Figures()
        start: Shops = {opened(records, movements): (1, ())}
        self._open: list[tuple[tuple[Reply, ...], Shops]] = [((), start)]
        self._prefix: tuple[Reply, ...] = ()
        self._shops: Shops = {}
        self._given: list[Reply] = []
        self._asked: list[Mapping[str, object]] = []
        self._again = 0
        self._followed = False

    def play(self, *, until_lost: bool = False) -> Figures:
        """Play all cases, or until the first of them has lost a record."""
        with self._told_when_begun_again():
            while self._open and not (until_lost and (self.figures.losses or self.figures.exceptions)):
                self._prefix, self._shops = self._open.pop()
                self._given, self._asked, self._again, self._followed = [], [], 0, False
                self._count(self._case())
        return self.figures

    @contextmanager
    def _told_when_begun_again(self) -> Iterator[None]:
        def processor(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
            self._again += event["event"] == "listing_begun_again"
            raise structlog.DropEvent

        before = structlog.get_config()
        structlog.configure(processors=[processor], cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)

    def _case(self) -> str:
        try:
            pages = self._source.fetch(self._answer)
        except BegunAgain:
            return "begun again"
        except SourceError as error:
            return f"error: {type(error).__name__}"
        if pages[-1].report.shortfall:
            return "unproven"
        self._require_all(pages)
        return "complete after it began again" if self._again else "complete"

    def _count(self, end: str) -> None:
        self.figures.cases += 1
        self.figures.requests += len(self._given)
        self.figures.most_requests = max(self.figures.most_requests, len(self._given))
        self.figures.scripts += sum(count for count, _ in self._shops.values())
        self.figures.ends[end] += 1

    def _require_all(self, pages: list[Page]) -> None:
        shown = {one["id"] for page in pages for one in msgspec.json.decode(page.records, type=list[dict[str, object]])}
        upper = pages[-1].report.upper
        meant = {one.id for one in self._records if upper is None or START + timedelta(seconds=one.value) < upper}
        for shop, (_, script) in self._shops.items():
            lost = (shop.kept & meant) - shown
            if lost and (exception := excepted(self._source.dialect, script)):
                self.figures.exceptions[exception] += 1
                continue
            if lost:
                told = tuple(
                    f"{query} -> {_shown(reply)}" for query, reply in zip(self._asked, self._given, strict=True)
                )
                self.figures.losses.append(
                    Loss(
                        self._source.dialect.name,
                        self._source.size,
                        self._records,
                        tuple(told_of(script)),
                        tuple(sorted(lost)),
                        told,
                    )
                )
                return

    def _answer(self, query: Mapping[str, object]) -> Reply:
        number = len(self._given)
        if number >= MOST_REQUESTS:
            raise Endless(self._source.dialect.name, self._records, told_of(next(iter(self._shops.values()))[1]))
        self._asked.append({name: value for name, value in query.items() if name != "limit"})
        reply = self._prefix[number] if number < len(self._prefix) else self._next(query, number)
        self._given.append(reply)
        return reply

    def _next(self, query: Mapping[str, object], number: int) -> Reply:
        follows = self._again and not self._whole
        if follows and not self._followed:
            self.figures.begun += 1
            if self.figures.begun % FOLLOWED != 1:
                raise BegunAgain
            self._followed = True
        shops = (
            self._shops
            if follows or not number
            else _moved(self._shops, self._source.dialect.order, self._source.dialect.dense, number + 1)
        )
        parts = self._parts(shops, query, one=bool(follows) or not number)
        reply, self._shops = next(iter(parts.items()))
        if not follows:
            given = tuple(self._given)
            others = [one for one in parts.items() if one[0] != reply]
            if self._chance is not None:
                others = [one for one in others if self._chance.random() < self._kept]
            self._open += [((*given, other), part) for other, part in others]
        return reply

    def _parts(self, shops: Shops, query: Mapping[str, object], *, one: bool) -> dict[Reply, Shops]:
        """The shops by what they would answer. ``one``: in the first of the orders that a shuffling source may choose."""
        parts: dict[Reply, Shops] = {}
        for shop, told in shops.items():
            for reply in self._source.dialect.replies(shop.records, query, self._source.size):
                parts.setdefault(reply, {})[shop] = told
                if one:
                    break
        return parts


def _moved(shops: Shops, order: Order, dense: bool, request: int) -> Shops:
    """Every shop as it is, or moved as often as it may."""
    found, moving = dict(shops), shops
    while moving:
        further: Shops = {}
        for shop, (count, script) in moving.items():
            for text, to in moves(shop, order, dense):
                before = further.get(to)
                further[to] = (count, (script, request, text)) if before is None else (before[0] + count, before[1])
        for shop, (count, script) in further.items():
            known = found.get(shop)
            found[shop] = (count, script) if known is None else (known[0] + count, known[1])
        moving = further
    return found


THREE = "three movements within the reading of two pages"
UNKNOWN_ORDER = "records move in an order that is not known"
UNSETTLED = "records come in another order on each request, in an order that is not known"


def excepted(dialect: Dialect, script: Script) -> str:
    """The documented exception that a loss falls under, "" for none ("What this does not prove")."""
    movements = len(told_of(script))
    if dialect.order is Order.OTHER and dialect.shuffles:
        return UNSETTLED
    if dialect.order is Order.OTHER and dialect.counted and movements >= 2:
        return UNKNOWN_ORDER
    return THREE if dialect.counted and movements >= 3 else ""


def told_of(script: Script) -> list[str]:
    """A script as text, the first movement first."""
    told: list[str] = []
    while script:
        script, request, text = script  # type: ignore[assignment]
        told.append(f"before request {request}: {text}")
    return told[::-1]


def _shown(reply: Reply) -> str:
    said = "".join(f" {name}={value}" for name, value in reply.said)
    return f"{' '.join(f'{one.id}@{one.value}' for one in reply.page) or 'nothing'}{said}"

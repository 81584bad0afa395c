"""What is played: at length by `make prove-paging`, and a sample of it with the tests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from tests.paging.catalogue import DIALECTS, SHUFFLED, lists
from tests.paging.dialects import Dialect, Names
from tests.paging.exploring import Exploration, Figures
from tests.paging.movements import Record
from tests.paging.source import Opened


@dataclass(frozen=True)
class Part:
    """All lists of ``shortest`` to ``longest`` records in all ``dialects``, with all scripts of up to ``movements``.

    ``kept``: of the cases that lie behind each request only so many of a thousand, by chance. ``every``: only each so many-th
    list. ``whole``: a listing that begins again goes on with all that may still move.
    """

    name: str
    dialects: tuple[Dialect, ...]
    movements: int
    longest: int
    sizes: tuple[int, ...] = (1, 2, 3)
    shortest: int = 0
    kept: int = 1000
    every: int = 1
    whole: bool = False

    def plays(self, text: str = "") -> Iterator[tuple[Dialect, int, int, Figures]]:
        """Play it list by list, in the dialects that have ``text`` in their name; yields page size and length as well."""
        for number, (dialect, size, records) in enumerate(self._lists(text)):
            if number % self.every == 0:
                chance = None if self.kept == 1000 else random.Random(number)
                kept = self.kept / 1000
                made = Exploration(
                    source(dialect, size), records, self.movements, whole=self.whole, chance=chance, kept=kept
                )
                yield dialect, size, len(records), made.play()

    def _lists(self, text: str) -> Iterator[tuple[Dialect, int, tuple[Record, ...]]]:
        for dialect in self.dialects:
            for size in self.sizes:
                if text in dialect.name and (
                    size > 1 or dialect.pager != "offset"
                ):  # which has no room for its overlap
                    for length in range(self.shortest, self.longest + 1):
                        yield from ((dialect, size, records) for records in lists(dialect, length))


@lru_cache(maxsize=1_000)
def source(dialect: Dialect, size: int) -> Opened:
    """That dialect's source, opened once."""
    return Opened(dialect, size)


def _alike(dialect: Dialect) -> bool:
    """Whether another dialect pages in the same way, and only says in other words what is the next page, or the last."""
    said = dialect.ends in ("header", "records", "link", "refusal", "url") and not dialect.moves
    far = dialect.names.value == "keys" and dialect.pager != "page" and not dialect.dense
    return said or far or (dialect.pager == "page" and dialect.ends == "more")


DISTINCT = tuple(one for one in DIALECTS if not _alike(one))
COUNTED = tuple(one for one in DISTINCT if one.counted)

NOTHING = Part("nothing moves", DIALECTS, 0, 6)
ONE = Part("one movement", DIALECTS, 1, 4)
ONE_LONGER = Part("one movement, longer lists", DISTINCT, 1, 6, (2, 3), shortest=5, every=4)
TWO = Part("two movements", DISTINCT, 2, 3)
TWO_LONGER = Part("two movements, longer lists", COUNTED, 2, 6, (2, 3), shortest=4, every=40)
THREE = Part("three movements, a sample", DISTINCT, 3, 4, (1, 2), shortest=2, kept=150, every=5)
WHOLE = Part("two movements, over all listings", COUNTED, 2, 3, (1, 2), shortest=2, every=41, whole=True)
SHUFFLES = Part("another order on each request", SHUFFLED, 0, 3)
SHUFFLES_LONGER = Part("another order on each request, longer lists", SHUFFLED, 0, 4, (2, 3), shortest=4, every=7)
SHUFFLES_AND_ONE = Part("another order on each request, one movement", SHUFFLED, 1, 3, (2,), every=5)
AT_LENGTH = (NOTHING, ONE, TWO, SHUFFLES, SHUFFLES_LONGER, ONE_LONGER, TWO_LONGER, WHOLE, THREE, SHUFFLES_AND_ONE)

SAMPLE = (
    replace(ONE, longest=3, every=7),
    replace(TWO, every=97),
    replace(WHOLE, movements=1, every=37),
    replace(THREE, every=401),
    replace(SHUFFLES, every=11),
)


def requests_documented(dialect: Dialect, records: int, size: int) -> int:
    """How many requests a list that does not move takes at most, by the reference.

    A page after another one is read with the one before it, or, of offsets, with both; the last one twice. Offsets overlap, and
    so do the pages of a keyset, by the records of one cursor value.
    """
    pages = max(1, -(-records // size))
    silent = dialect.ends in ("empty", "refusal") or (dialect.pager == "offset" and not dialect.ends)
    if dialect.moves:
        return 4 * (records + 1)
    if dialect.pager == "offset":
        return 1 + 3 * (max(0, records - size) + silent)
    pages += silent and records > 0
    if dialect.counted or (dialect.names is Names.KEYS and dialect.param != "since_id" and dialect.pager != "last_id"):
        return 2 * pages if pages > 1 else 1
    return pages

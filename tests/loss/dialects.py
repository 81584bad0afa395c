"""How the hostile source speaks: one dialect is both what its server does and what its declaration says of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from tidegate.domain.zone_data import zone_info

EPOCH = datetime(1970, 1, 1)
WALL = ("local", "date")


class Order(StrEnum):
    """In which order records are listed."""

    OLDEST_CHANGE = "oldest_change"
    NEWEST_CHANGE = "newest_change"
    ID = "id"


class Names(StrEnum):
    """What a token or link names, where it is no opaque bookmark."""

    PAGES = "pages"
    OFFSETS = "offsets"
    KEYS = "keys"


class Ends(StrEnum):
    """How the source says that a page is the last one."""

    TOKEN = "token"  # there is no next token or link
    MORE = "more"  # has_more
    TOTAL = "total"  # the number of pages, or of records
    HEADER = "header"  # the number of pages in a header
    EMPTY = "empty"  # a page without records


@dataclass(frozen=True)
class Dialect:
    """One kind of API. ``precision``: the grain it shows, in seconds; it keeps microseconds and ``compares_kept`` or not.

    ``cursor``: the field that orders changes, "" for a stream listed in full. ``changes``: False if records never change
    after creation. ``lookback``: the longest that a change may take to show, in seconds of the source's clock.
    ``moves``: the reader moves the lower bound from page to page, and pages within one cursor value only.
    ``shuffles``: records of one cursor value come in another order on each page, as a database without tie-breaker has them.
    ``names``: what the token or link is made of; None for an opaque one.
    """

    name: str
    pager: str
    order: Order = Order.OLDEST_CHANGE
    ends: Ends = Ends.TOKEN
    cursor: str = "updated_at"
    changes: bool = True
    format: str = "iso"
    precision: float = 1
    zone: str = "Etc/UTC"
    meaning: str = "inclusive"
    compares_kept: bool = True
    sends_date: bool = True
    text_keys: bool = False
    lookback: int = 90
    moves: bool = False
    shuffles: bool = False
    names: Names | None = None

    @property
    def counted(self) -> bool:
        """Whether pages are counted, so that records slip between them when the order shifts."""
        return self.names in (Names.PAGES, Names.OFFSETS) or self.pager in ("page", "offset")

    @property
    def may_begin_again(self) -> bool:
        """Whether its pages are read again, so that the reader may begin again: what could be a place may be a key."""
        return self.counted or self.names is not None

    @property
    def has_token(self) -> bool:
        """Whether the source keeps a bookmark for the next page, so that it may repeat or withhold itself."""
        return self.names_next and self.names is None

    @property
    def names_next(self) -> bool:
        """Whether the source names the next page."""
        return self.pager in ("cursor", "link")

    @property
    def grain(self) -> timedelta:
        """The grain of what it shows."""
        return timedelta(days=1) if self.format == "date" else timedelta(seconds=self.precision)

    def kept(self, instant: datetime) -> datetime:
        """What the source keeps of an instant: wall time or UTC, without a zone."""
        zone = zone_info(self.zone) if self.format in WALL else UTC
        return instant.astimezone(zone).replace(tzinfo=None, fold=0)

    def compared(self, instant: datetime) -> datetime:
        """What the source compares and sorts by."""
        kept = self.kept(instant)
        return kept if self.compares_kept else EPOCH + (kept - EPOCH) // self.grain * self.grain

    def shown(self, instant: datetime) -> str | int:
        """The instant as a record shows it."""
        floored = EPOCH + (self.kept(instant) - EPOCH) // self.grain * self.grain
        match self.format:
            case "epoch_seconds":
                return (floored - EPOCH) // timedelta(seconds=1)
            case "epoch_milliseconds":
                return (floored - EPOCH) // timedelta(milliseconds=1)
            case "date":
                return floored.date().isoformat()
            case "local":
                return floored.isoformat(sep=" ", timespec="seconds")
            case _:
                return floored.isoformat(timespec="milliseconds" if self.precision < 1 else "seconds") + "Z"

    def bound(self, text: str) -> datetime:
        """A filter's parameter as the source understands it, comparable with `compared`."""
        match self.format:
            case "epoch_seconds":
                return EPOCH + timedelta(seconds=int(text))
            case "epoch_milliseconds":
                return EPOCH + timedelta(milliseconds=int(text))
            case "date":
                return datetime.fromisoformat(text)
            case _:
                return datetime.fromisoformat(text.removesuffix("Z"))

    def declaration(self, url: str, *, page_size: int) -> str:
        """The YAML that declares this source at ``url``."""
        lines = [
            "name: hostile",
            f"base_url: '{url}'",
            "streams:",
            "  orders:",
            "    path: /orders",
            "    records: data",
            f"    page_size: {{param: limit, value: {page_size}}}",
            f"    pager: {self._pager()}",
        ]
        if self.cursor:
            ascending = str(self.order is Order.OLDEST_CHANGE).lower()
            precision = "" if self.format == "date" else f", precision_seconds: {self.precision}"
            lines += [
                f"    cursor: {{field: {self.cursor}, format: {self.format}, time_zone: {self.zone}, ascending: {ascending},"
                f" changes: {str(self.changes).lower()}{precision}}}",
                f"    lower: {{param: since, meaning: {self.meaning}}}",
                f"    upper: {{param: until, meaning: {self.meaning}}}",
                f"    lookback_seconds: {self.lookback}",
            ]
        return "\n".join(lines) + "\n"

    def _pager(self) -> str:
        return f"{{type: keyset, within: {self._pages()}}}" if self.moves else self._pages()

    def _pages(self) -> str:
        more = ", has_more: more" if self.ends is Ends.MORE else ""
        total = {"page": ", total_pages: pages", "offset": ", total_records: total"}.get(self.pager, "")
        total = total if self.ends is Ends.TOTAL else ""
        header = ", total_pages: {header: X-Pages}" if self.ends is Ends.HEADER else ""
        match self.pager:
            case "cursor":
                return f"{{type: cursor, param: after, token: next.token{more}}}"
            case "last_id":
                return f"{{type: last_id, param: after{more}}}"
            case "link" | "none":
                return f"{{type: {self.pager}}}"
            case _:
                return f"{{type: {self.pager}, param: {self.pager}{more}{total}{header}}}"


_OLDEST, _NEWEST, _ID = Order.OLDEST_CHANGE, Order.NEWEST_CHANGE, Order.ID
_PAGES, _OFFSETS, _KEYS = Names

DIALECTS = (
    Dialect("keyset", "cursor"),
    Dialect("keyset_silent", "cursor", ends=Ends.MORE, meaning="exclusive", sends_date=False, text_keys=True),
    Dialect("keyset_newest", "cursor", _NEWEST, precision=0.001, meaning="exclusive"),
    Dialect("keyset_prompt", "cursor", _NEWEST, precision=0.001, lookback=0),
    Dialect("keyset_minutes", "cursor", precision=60, compares_kept=False, meaning="exclusive"),
    Dialect("last_id", "last_id", _ID, Ends.EMPTY, format="epoch_seconds", meaning="exclusive"),
    Dialect("last_id_created", "last_id", _ID, Ends.MORE, "created_at", changes=False, format="epoch_seconds"),
    Dialect("created_keyset", "cursor", _OLDEST, Ends.TOKEN, "created_at", changes=False, meaning="exclusive"),
    Dialect("link", "link", meaning="exclusive", compares_kept=False),
    Dialect("link_newest", "link", _NEWEST, format="epoch_milliseconds", precision=0.001),
    Dialect("link_of_pages", "link", meaning="exclusive", names=_PAGES),
    Dialect("link_of_pages_newest", "link", _NEWEST, precision=0.001, names=_PAGES),
    Dialect("token_of_pages", "cursor", ends=Ends.MORE, names=_PAGES),
    Dialect("token_of_shuffled", "cursor", precision=600, compares_kept=False, shuffles=True, names=_PAGES),
    Dialect("token_of_offsets", "cursor", _ID, names=_OFFSETS),
    Dialect("link_of_offsets", "link", _ID, Ends.TOKEN, "created_at", changes=False, names=_OFFSETS),
    Dialect("token_of_keys", "cursor", _ID, Ends.MORE, format="epoch_seconds", meaning="exclusive", names=_KEYS),
    Dialect("link_of_keys", "link", _ID, cursor="", names=_KEYS),
    Dialect("page", "page", ends=Ends.TOTAL),
    Dialect("page_newest", "page", _NEWEST, Ends.HEADER, format="epoch_milliseconds", precision=0.001),
    Dialect("page_unsaid", "page", _OLDEST, Ends.EMPTY, meaning="exclusive", compares_kept=False),
    Dialect("moving", "page", ends=Ends.TOTAL, moves=True),
    Dialect("moving_exclusive", "page", _OLDEST, Ends.HEADER, precision=0.001, meaning="exclusive", moves=True),
    Dialect("moving_coarse", "page", _OLDEST, Ends.EMPTY, precision=60, compares_kept=False, moves=True),
    Dialect("moving_token", "cursor", ends=Ends.MORE, meaning="exclusive", moves=True),
    Dialect("moving_local", "page", ends=Ends.TOTAL, format="local", zone="Europe/London", moves=True),
    Dialect("shuffled_page", "page", ends=Ends.TOTAL, precision=600, compares_kept=False, shuffles=True),
    Dialect("shuffled_newest", "page", _NEWEST, Ends.EMPTY, precision=600, compares_kept=False, shuffles=True),
    Dialect("shuffled_moving", "page", ends=Ends.TOTAL, precision=600, compares_kept=False, moves=True, shuffles=True),
    Dialect("shuffled_offset", "offset", ends=Ends.TOTAL, precision=600, compares_kept=False, shuffles=True),
    Dialect("offset", "offset", ends=Ends.TOTAL, format="epoch_seconds", text_keys=True),
    Dialect("offset_newest", "offset", _NEWEST, Ends.MORE, precision=0.001),
    Dialect("full", "none", _ID, cursor=""),
    Dialect("full_keyset", "cursor", _ID, Ends.MORE, cursor=""),
    Dialect("full_offset", "offset", _ID, Ends.EMPTY, cursor=""),
    Dialect("local", "cursor", format="local", zone="Europe/London"),
    Dialect("local_newest", "link", _NEWEST, format="local", zone="America/New_York", meaning="exclusive"),
    Dialect("date", "cursor", format="date", zone="Pacific/Auckland"),
    Dialect("date_exclusive", "link", format="date", zone="America/Havana", meaning="exclusive", compares_kept=False),
)


def dialect(name: str) -> Dialect:
    """The dialect of that name."""
    return next(one for one in DIALECTS if one.name == name)

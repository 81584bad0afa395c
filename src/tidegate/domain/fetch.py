"""What a fetch is asked for, what it yields, and what it reports to have done (SPEC 4, 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from tidegate.domain.period import Period

PageToken: TypeAlias = Mapping[str, object]
"""A position inside one paged response: JSON-ready, meaningful only to the source that gave it."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What the engine asks of a source for one stream and one period.

    ``lower``: inclusive; None lists in full. ``upper``: exclusive; None is open-ended. ``stop_after``: the clock
    read before the first page; only a stream declared ascending may stop once the cursor has passed it.
    ``resume``: where an unfinished fetch goes on, None from the beginning. ``changes_since``: the change token that the last
    succeeded fetch reported, None for a stream without change feed, or with none yet: it is listed in full.
    """

    stream: str
    lower: datetime | None
    upper: datetime | None
    stop_after: datetime
    resume: PageToken | None = None
    changes_since: str | None = None


@dataclass(frozen=True, slots=True)
class FetchReport:
    """The bounds and filters that took effect, for the ledger that cannot lie (SPEC 5).

    ``lower``/``upper`` as in FetchRequest (None means unbounded there). ``filters``: every other restriction that
    took effect, empty for none. ``shortfall``: why not all pages could be read or not all records
    shown, "" if all were. ``remarks``: what else happened, and how often, since the page before.
    ``change_token``: what the next fetch of a change feed begins with; the last page has it.
    """

    lower: datetime | None
    upper: datetime | None
    filters: Mapping[str, object] = field(default_factory=dict)
    shortfall: str = ""
    remarks: Mapping[str, int] = field(default_factory=dict)
    change_token: str = ""

    def and_then(self, later: FetchReport) -> FetchReport:
        """Return what holds for both this part of a fetch and a ``later`` one: no part may promise for the other."""
        lowers = [report.lower for report in (self, later) if report.lower is not None]
        uppers = [report.upper for report in (self, later) if report.upper is not None]
        return FetchReport(
            lower=max(lowers, default=None),
            upper=min(uppers, default=None),
            filters={**self.filters, **later.filters},
            shortfall=self.shortfall or later.shortfall,
            remarks={
                remark: self.remarks.get(remark, 0) + later.remarks.get(remark, 0)
                for remark in (*self.remarks, *later.remarks)
            },
            change_token=later.change_token or self.change_token,
        )

    def proves(self, period: Period) -> bool:
        """Return whether, all pages read, every record of ``period`` has been shown.

        >>> from datetime import UTC, datetime
        >>> july = Period(datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC))
        >>> FetchReport(lower=None, upper=None).proves(july)
        True
        >>> FetchReport(lower=datetime(2026, 7, 2, tzinfo=UTC), upper=None).proves(july)
        False
        """
        reaches_back = self.lower is None or self.lower <= period.start
        reaches_on = self.upper is None or self.upper >= period.end
        return reaches_back and reaches_on and not self.filters and not self.shortfall


@dataclass(frozen=True, slots=True)
class Page:
    """One page of records as the source sent them.

    ``records``: the text of one JSON array (UTF-8), one element per record. ``token``: where the next page starts,
    None if this was the last. ``requested_at``: our clock just before the request was sent, which orders versions with
    equal cursor values (SPEC 4). ``source_at``: the source's own clock (HTTP Date), None if it sends none.
    """

    records: bytes
    token: PageToken | None
    requested_at: datetime
    report: FetchReport
    source_at: datetime | None = None

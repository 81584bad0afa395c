"""Shopify's search syntax, as far as a sync needs it: terms on time stamps and on the status of orders.

Like Shopify, the sandbox ignores a term it does not know, and says so in a warning.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from tidegate.demo.shop_goods import Record

Test: TypeAlias = Callable[[Record], bool]

_TERM = re.compile(r"""(?P<field>\w+):(?P<comparator>>=|<=|>|<)?(?P<value>'[^']*'|"[^"]*"|\S+)|(?P<other>\S+)""")
_TIMES = {"updated_at": "updatedAt", "created_at": "createdAt"}
_COMPARATORS: Mapping[str, Callable[[datetime, datetime], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "": operator.eq,
}
_STATUSES: Mapping[str, Test] = {
    "any": lambda order: True,
    "open": lambda order: not order["closed"] and order["cancelledAt"] is None,
    "closed": lambda order: bool(order["closed"]),
    "not_closed": lambda order: not order["closed"],
    "cancelled": lambda order: order["cancelledAt"] is not None,
}


@dataclass(frozen=True, slots=True)
class Search:
    """A parsed search: the tests a record must pass, and the ``warnings`` for terms that were ignored."""

    tests: tuple[Test, ...]
    warnings: tuple[dict[str, str], ...] = ()

    def matches(self, record: Record) -> bool:
        """Return whether ``record`` passes every test."""
        return all(test(record) for test in self.tests)


def parse_search(stream: str, query: str) -> Search:
    """Return the search that ``query`` means for ``stream``; orders without a status term are the open ones only."""
    tests: list[Test] = []
    warnings: list[dict[str, str]] = []
    statuses = _STATUSES if stream == "orders" else {}
    status_given = False
    for term in _TERM.finditer(query):
        if term["other"] == "AND":
            continue
        name, value = term["field"] or "", (term["value"] or "").strip("'\"")
        if name == "status" and value in statuses:
            tests.append(statuses[value])
            status_given = True
        elif name in _TIMES and (bound := _instant(value)) is not None:
            tests.append(_time_test(_TIMES[name], term["comparator"] or "", bound))
        else:
            message = "Invalid search field or value for this query."
            warnings.append({"field": name or term[0], "message": message, "code": "invalid_field"})
    if statuses and not status_given:
        tests.append(statuses["open"])
    return Search(tuple(tests), tuple(warnings))


def _time_test(field: str, comparator: str, bound: datetime) -> Test:
    compare = _COMPARATORS[comparator]
    return lambda record: compare(datetime.fromisoformat(record[field]), bound)


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant

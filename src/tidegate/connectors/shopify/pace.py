"""Pacing by points: no request is sent before Shopify's bucket has room for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tidegate.connectors.shopify.replies import Cost, ThrottleStatus
from tidegate.domain.clock import Clock

SINGLE_QUERY_LIMIT = 1000.0
"""Points; Shopify refuses a query that may cost more, whatever the plan."""

MAX_PAGE_SIZE = 250
"""Records; Shopify's limit of ``first``."""


@dataclass(slots=True)
class Pace:
    """What the replies have told of the bucket and of the price of each query, in points and seconds.

    One record's price is a query's requested cost divided by the records asked for: the fixed part makes it a
    little too high, never too low, when a page grows.
    """

    clock: Clock
    _bucket: ThrottleStatus | None = None
    _known_at: datetime | None = None
    _record_costs: dict[str, float] = field(default_factory=dict)

    async def wait_for_room(self, query: str, size: int) -> None:
        """Return once the bucket holds what ``query`` for ``size`` records is expected to cost.

        For a query not sent before, that is the most a query may cost; before any reply, nothing is known to wait for.
        """
        record_cost = self._record_costs.get(query)
        seconds = self._seconds_until(SINGLE_QUERY_LIMIT if record_cost is None else record_cost * size)
        if seconds > 0:
            await self.clock.sleep(seconds)

    def _seconds_until(self, points: float) -> float:
        bucket = self._bucket
        if bucket is None or self._known_at is None or bucket.restore_rate <= 0:
            return 0.0
        restored = (self.clock.now() - self._known_at).total_seconds() * bucket.restore_rate
        missing = min(points, bucket.maximum_available) - bucket.currently_available - restored
        return max(0.0, missing / bucket.restore_rate)

    def learn(self, query: str, size: int, cost: Cost) -> None:
        """Take in what a reply said of the bucket and of the price of ``query`` for ``size`` records."""
        self._bucket = cost.throttle_status
        self._known_at = self.clock.now()
        self._record_costs[query] = cost.requested_query_cost / size

    def page_size(self, query: str, initial: int) -> int:
        """Return how many records to ask for: up to half the bucket and nine tenths of the limit of one query.

        Half, so that the next page need not wait for a full bucket while this one's refund is under way.
        """
        record_cost = self._record_costs.get(query)
        if not record_cost or self._bucket is None:
            return initial
        affordable = min(0.9 * SINGLE_QUERY_LIMIT, 0.5 * self._bucket.maximum_available) / record_cost
        return max(1, min(MAX_PAGE_SIZE, int(affordable)))


def seconds_until_room(cost: Cost) -> float | None:
    """Return how long a refused query has to wait for its points, None if the bucket never restores."""
    bucket = cost.throttle_status
    if bucket.restore_rate <= 0:
        return None
    return max(0.0, (cost.requested_query_cost - bucket.currently_available) / bucket.restore_rate)

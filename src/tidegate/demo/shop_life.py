"""What happens in the sandbox shop as time passes: orders come in, are paid, sent, changed, refunded, cancelled.

Which events there are, and when, is a function of the seed alone: it does not matter how often or how late one looks.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.demo.shop_goods import PRODUCT_COUNT, Record, customer, iso, money, money_bag, order, pick, product, roll
from tidegate.demo.shop_table import Table

HOUR = 3600
DAY = 24 * HOUR

HOURLY_WEIGHTS = (
    *(0.3, 0.2, 0.1, 0.1, 0.1, 0.2, 0.4, 0.7, 1.0, 1.2, 1.3, 1.4),
    *(1.6, 1.4, 1.2, 1.2, 1.3, 1.4, 1.6, 1.9, 2.0, 1.7, 1.1, 0.6),
)
"""Share of an average hour's orders that each UTC hour of the day gets; 24 in sum."""


@dataclass(slots=True)
class Life:
    """The shop's events in order of time. ``opened_at`` in epoch seconds; with no orders per day nothing happens."""

    seed: int
    opened_at: int
    orders_per_day: float
    tables: Mapping[str, Table]
    _events: list[tuple[int, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(1, PRODUCT_COUNT + 1):
            self.tables["products"].add(product(number, self.opened_at), self.opened_at)
        if self.orders_per_day > 0:
            self._plan(self.opened_at, "hour", 0)

    def advance(self, now: int) -> None:
        """Let everything happen that happens up to ``now`` (epoch seconds), it included."""
        while self._events and self._events[0][0] <= now:
            at, what, number = heapq.heappop(self._events)
            if what == "hour":
                self._hour(at, number)
            elif what == "order":
                self.add_order(at)
            elif what == "reprice":
                self._reprice(at, number)
            else:
                self._edit_order(at, what, number)

    def add_order(self, at: int, line_items: int | None = None) -> int:
        """Place an order at ``at``, plan what becomes of it, and return its number."""
        orders, customers = self.tables["orders"], self.tables["customers"]
        number = orders.next_number
        buyer = self._buyer(at, number)
        placed = order(self.seed, number, at, customers.get(buyer), line_items)
        orders.add(placed, at)
        self._count_order(at, buyer, placed["totalPriceSet"]["shopMoney"]["amount"])
        if self.orders_per_day > 0:
            self._plan_edits(at, number)
        return number

    def _plan(self, at: int, what: str, number: int) -> None:
        heapq.heappush(self._events, (at, what, number))

    def _hour(self, at: int, hour: int) -> None:
        weight = HOURLY_WEIGHTS[at // HOUR % 24]
        count = int(self.orders_per_day / 24 * weight + roll(self.seed, "orders", hour))
        for place in range(count):
            self._plan(at + int(roll(self.seed, "order at", hour, place) * HOUR), "order", place)
        if hour % 24 == 9:
            self._plan(at + 60, "reprice", 1 + int(roll(self.seed, "reprice", hour) * PRODUCT_COUNT))
        self._plan(at + HOUR, "hour", hour + 1)

    def _plan_edits(self, at: int, number: int) -> None:
        chance = roll(self.seed, "fate", number)
        self._plan(at + int(roll(self.seed, "paid", number) * 600), "paid", number)
        if roll(self.seed, "noted", number) < 0.1:
            self._plan(at + int(roll(self.seed, "noted at", number) * 2 * HOUR), "noted", number)
        if chance < 0.03:
            self._plan(at + HOUR + int(roll(self.seed, "cancelled", number) * DAY), "cancelled", number)
            return
        sent_at = at + 2 * HOUR + int(roll(self.seed, "sent", number) * 2 * DAY)
        self._plan(sent_at, "fulfilled", number)
        self._plan(sent_at + HOUR, "closed", number)
        if chance > 0.94:
            self._plan(sent_at + 3 * DAY + int(roll(self.seed, "refunded", number) * 22 * DAY), "refunded", number)

    def _buyer(self, at: int, number: int) -> int:
        customers = self.tables["customers"]
        if len(customers) == 0 or roll(self.seed, "new customer", number) < 0.4:
            return customers.add(customer(self.seed, customers.next_number, at), at)
        return pick(self.seed, range(1, len(customers) + 1), "buyer", number)

    def _count_order(self, at: int, buyer: int, amount: str) -> None:
        known = self.tables["customers"].get(buyer)
        if known is not None:
            spent = _pence(known["amountSpent"]["amount"]) + _pence(amount)
            count = str(int(known["numberOfOrders"]) + 1)
            self.tables["customers"].edit(buyer, at, numberOfOrders=count, amountSpent=money(spent))

    def _reprice(self, at: int, number: int) -> None:
        known = self.tables["products"].get(number)
        if known is not None:
            factor = 0.9 + 0.2 * roll(self.seed, "price", number, at)
            priced = product(number, self.opened_at, factor)
            changes = {name: priced[name] for name in ("priceRangeV2", "variants")}
            self.tables["products"].edit(number, at, **changes)

    def _edit_order(self, at: int, what: str, number: int) -> None:
        orders = self.tables["orders"]
        known = orders.get(number)
        if known is None or known["cancelledAt"] is not None:
            return
        orders.edit(number, at, **_changes(what, known, at))


def _changes(what: str, order: Record, at: int) -> dict[str, object]:
    """Return the fields of ``order`` that event ``what`` sets."""
    match what:
        case "paid":
            return {"displayFinancialStatus": "PAID", "totalOutstandingSet": money_bag(0)}
        case "noted":
            return {"note": "Please leave it at the harbour office.", "tags": ["note"]}
        case "fulfilled":
            lines = [{**line, "unfulfilledQuantity": 0} for line in order["lineItems"]]
            return {"displayFulfillmentStatus": "FULFILLED", "lineItems": lines}
        case "closed":
            return {"closed": True, "closedAt": iso(at)}
        case "cancelled":
            return {"cancelledAt": iso(at), "cancelReason": "CUSTOMER", "displayFinancialStatus": "VOIDED"}
        case "refunded":
            refunded = {"displayFinancialStatus": "REFUNDED", "returnStatus": "RETURNED"}
            return {**refunded, "totalRefundedSet": order["totalPriceSet"], "currentTotalPriceSet": money_bag(0)}
    raise ValueError(f"nothing is known of the event {what!r}")


def _pence(amount: str) -> int:
    return round(float(amount) * 100)

"""What children cost: processor time to take them from their parents' pages, and the size of a page token.

python -m tests.connectors.children.measure_children
"""

from __future__ import annotations

import time

import msgspec

from tests.connectors.children.counter import ASKED, NESTED, declaration
from tidegate.connectors.rest.children import ChildStream, Waiting
from tidegate.connectors.rest.listing import ListedStream
from tidegate.connectors.rest.loader import load
from tidegate.domain.fetch import FetchReport

PARENTS, ITEMS, ROUNDS = 250, 4, 200


def page() -> bytes:
    """Return a page of orders with their items, about 900 bytes each."""
    items = [{"id": item, "label": "x" * 60, "quantity": 2, "price": "12.50"} for item in range(ITEMS)]
    order = {
        "updated_at": "2026-07-01T01:00:00+00:00",
        "currency": "EUR",
        "note": "y" * 400,
        "lines": {"list": items, "more": False},
    }
    return msgspec.json.encode([{"id": number, **order} for number in range(PARENTS)])


def stream(way: str) -> ChildStream:
    """Return the child stream that ``way`` declares."""
    declared = load(declaration("http://x.example", way))
    return ChildStream.made(declared.streams["items"], ListedStream(declared.streams["orders"], declared.error_codes))


def main() -> None:
    """Print the figures."""
    records, family = page(), stream(NESTED).family
    began = time.process_time()
    for _ in range(ROUNDS):
        family.split(records).records()
    took = (time.process_time() - began) / ROUNDS
    print(f"{PARENTS} parents of {ITEMS} children, {len(records) // 1024} KB: {took * 1000:.2f} ms a page,")
    print(f"{PARENTS * ITEMS / took:,.0f} children per second of one core")
    waiting = Waiting(left=stream(ASKED).family.split(records).to_ask, report=FetchReport(None, None))
    began = time.process_time()
    for _ in range(ROUNDS):
        token = msgspec.json.encode(waiting.token())
    took = (time.process_time() - began) / ROUNDS
    print(f"page token with {PARENTS} parents to ask: {len(token) / 1024:.1f} KB, {took * 1000:.2f} ms to make")


if __name__ == "__main__":
    main()

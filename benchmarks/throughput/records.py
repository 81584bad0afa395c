"""The benchmark's data: records of 25 typed fields, pre-rendered as JSON pages, the same bytes for every contestant."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import msgspec

PAGE_SIZE = 250
FIELDS = (
    ("id", "bigint"),
    ("number", "text"),
    ("status", "text"),
    ("currency", "text"),
    ("customer_id", "bigint"),
    ("customer_email", "text"),
    ("customer_name", "text"),
    ("ship_street", "text"),
    ("ship_city", "text"),
    ("ship_postcode", "text"),
    ("ship_country", "text"),
    ("subtotal", "numeric"),
    ("shipping", "numeric"),
    ("tax", "numeric"),
    ("discount", "numeric"),
    ("total", "numeric"),
    ("item_count", "bigint"),
    ("weight_grams", "bigint"),
    ("paid", "boolean"),
    ("test", "boolean"),
    ("channel", "text"),
    ("note", "text"),
    ("due_on", "date"),
    ("created_at", "timestamp"),
    ("updated_at", "timestamp"),
)
"""Name and type of each field; note is null in two of three records."""

_CITIES = ("Zürich", "London", "São Paulo", "Auckland", "New York", "Łódź", "Cairo", "Lyon")
_STATUSES = ("open", "paid", "shipped", "refunded", "cancelled")
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def record(number: int, draw: random.Random) -> dict[str, object]:
    """Return one order; ids and updated_at ascend with ``number``."""
    cents = draw.randrange(100, 500_000)
    created = _BEGINNING + timedelta(seconds=number * 7)
    customer = draw.randrange(1, 50_000)
    return {
        "id": 5_000_000_000 + number,
        "number": f"#{number:07d}",
        "status": draw.choice(_STATUSES),
        "currency": "GBP",
        "customer_id": customer,
        "customer_email": f"customer{customer}@example.com",
        "customer_name": f"Name Surname {customer}",
        "ship_street": f"{draw.randrange(1, 400)} High Street",
        "ship_city": draw.choice(_CITIES),
        "ship_postcode": f"AB{draw.randrange(10, 99)} {draw.randrange(1, 9)}CD",
        "ship_country": "GB",
        "subtotal": cents / 100 + 0.01,
        "shipping": 4.99,
        "tax": cents // 5 / 100 + 0.003,
        "discount": draw.randrange(0, 500) / 100 + 0.001,
        "total": cents * 6 // 5 / 100 + 0.005,
        "item_count": draw.randrange(1, 20),
        "weight_grams": draw.randrange(50, 20_000),
        "paid": draw.random() < 0.9,
        "test": False,
        "channel": "web",
        "note": "Leave it with the neighbour, please" if number % 3 == 0 else None,
        "due_on": (created + timedelta(days=14)).date().isoformat(),
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "updated_at": (created + timedelta(minutes=number % 60)).isoformat().replace("+00:00", "Z"),
    }


def edited_later(order: dict[str, object]) -> dict[str, object]:
    """Return the order as it is after somebody has edited it, a year later."""
    return order | {"status": "archived", "updated_at": str(order["updated_at"]).replace("2026", "2027", 1)}


def pages(count: int, seed: int = 20260701, *, edited: bool = False) -> list[bytes]:
    """Return ``count`` records as the JSON arrays of successive pages of 250, the same for the same seed."""
    shown = edited_later if edited else dict
    draw = random.Random(seed)
    encoder = msgspec.json.Encoder()
    return [
        encoder.encode([shown(record(number, draw)) for number in range(first, min(first + PAGE_SIZE, count + 1))])
        for first in range(1, count + 1, PAGE_SIZE)
    ]

"""Pages fetched ahead of the one in hand are bounded, by number and by bytes: the source may send large ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tidegate.domain.fetch import FetchReport, Page
from tidegate.engine.attempt.delivery import ahead
from tidegate.engine.settings import Settings

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        ([1000] * 40, 1 + 16 + 1),  # the one in hand, as many as are fetched ahead, and one that waits for room
        ([3 * MIB] * 12, 1 + 3 + 1),  # 9 MiB are more than two batches of 4
        ([64 * MIB] * 4, 1 + 1 + 1),  # each is: one is fetched ahead all the same, and nothing stands still
        ([64 * MIB, *[1000] * 30, 64 * MIB, 64 * MIB], 1 + 16 + 1),
    ],
    ids=["small", "large", "enormous", "mixed"],
)
def test_pages_ahead_are_bounded_by_number_and_by_bytes(sizes: list[int], most: int) -> None:
    settings, texts = Settings(), {size: bytes(size) for size in set(sizes)}
    there: list[int] = []  # fetched, and not yet let go
    high = 0

    async def fetched() -> AsyncIterator[Page]:
        nonlocal high
        for number, size in enumerate(sizes, 1):
            there.append(size)
            high = max(high, len(there))
            token = {"page": number} if number < len(sizes) else None
            yield Page(texts[size], token, datetime(2026, 7, 13, tzinfo=UTC), FetchReport(None, None))

    async def read() -> list[int]:
        seen = []
        async with ahead(fetched(), settings.pages_ahead, settings.bytes_ahead, lambda _page: None) as pages:
            async for page in pages:
                for _ in range(100):  # the source has all the time that it wants
                    await asyncio.sleep(0)
                seen.append(len(page.records))
                there.pop(0)
        return seen

    assert asyncio.run(read()) == sizes
    assert high == most


@pytest.mark.parametrize("slow", [True, False], ids=["the writer waits", "the writer is there"])
def test_each_page_is_made_ready_once_in_order_when_the_next_one_has_been_asked_for(slow: bool) -> None:
    """Decision 0006: the source answers while the page before is rendered, and no page is rendered twice."""
    told: list[str] = []

    async def fetched() -> AsyncIterator[Page]:
        for number in range(1, 6):
            told.append(f"asked {number}")
            await asyncio.sleep(0)
            token = {"page": number} if number < 5 else None
            yield Page(b"%d" % number, token, datetime(2026, 7, 13, tzinfo=UTC), FetchReport(None, None))

    async def read() -> None:
        def ready(page: Page) -> None:
            told.append(f"ready {page.records.decode()}")

        async with ahead(fetched(), 16, MIB, ready) as pages:
            async for page in pages:
                for _ in range(50 if slow else 0):
                    await asyncio.sleep(0)
                told.append(f"taken {page.records.decode()}")

    asyncio.run(read())
    at = {what: told.index(what) for what in told}
    assert len(at) == len(told) == 15
    assert all(at[f"ready {n}"] < at[f"taken {n}"] for n in range(1, 6))
    assert all(at[f"asked {n + 1}"] < at[f"ready {n}"] < at[f"ready {n + 1}"] for n in range(2, 5))

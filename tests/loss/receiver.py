"""A receiver of webhooks that fails as receivers do, and what it holds in the end; it keeps ids (SPEC 5 "Webhook")."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import asyncpg

from tests.destinations.webhook.receiver import Received, Receiver, Reply
from tests.loss.evidence import Found, Violation, kept_aside
from tests.loss.tap import OverheardDestination
from tidegate.destinations.webhook.webhook import Webhook
from tidegate.domain.outgoing import Answer, Sending

CUT = 0
"""The receiver has taken the message, and its acknowledgement is lost."""
FAILURES: tuple[Reply, ...] = ((CUT, {}, ""), (503, {}, "down"), (429, {"Retry-After": "7"}, ""), (408, {}, ""))


class OverheardWebhook(OverheardDestination):
    """A webhook, overheard: what it hands over waits in the outbox until a sender has sent it."""

    destination: Webhook

    @property
    def retry_for(self) -> timedelta:
        return self.destination.retry_for

    async def send(self, sending: Sending, now: datetime) -> Answer:
        return await self.destination.send(sending, now)


@dataclass
class Moods:
    """Answers with a failure now and then, until it is calm. The same seed gives the same answers."""

    chance: float
    random: Random

    def calm(self) -> None:
        self.chance = 0.0

    def answer(self, _number: int) -> Reply:
        return self.random.choice(FAILURES) if self.random.random() < self.chance else (204, {}, "")


def kept(receiver: Receiver) -> list[Received]:
    """Return the messages that the receiver has, each id once, in the order in which they came first."""
    first: dict[str, Received] = {}
    for one in receiver.received:
        if one.status == CUT or 200 <= one.status < 300:
            first.setdefault(one.id, one)
    return list(first.values())


def _entries(receiver: Receiver) -> Iterator[Mapping[str, Any]]:
    for one in kept(receiver):
        yield from json.loads(one.body, parse_float=Decimal)["data"]["records"]


async def found(pool: asyncpg.Pool[asyncpg.Record], receiver: Receiver) -> Found:
    """Return what the receiver makes of its messages, the later one going before the earlier; and the quarantine."""
    rows = {
        entry["record"]["ref"]: {
            **entry["record"], "_tidegate_cursor": entry["version"]["cursor"], "_tidegate_misfits": None,
        }
        for entry in _entries(receiver)
    }  # fmt: skip
    return await kept_aside(pool, rows)


def writes(receiver: Receiver) -> dict[int, list[int]]:
    """Return the revisions that came of each record, in order."""
    came: dict[int, list[int]] = {}
    for entry in _entries(receiver):
        came.setdefault(entry["record"]["ref"], []).append(entry["record"]["revision"])
    return came


def in_order(receiver: Receiver) -> Iterator[Violation]:
    """Yield where messages came out of their order, were left out, or came again as something else."""
    positions = [one.data["position"] for one in kept(receiver)]
    if positions != list(range(1, len(positions) + 1)):
        yield Violation("order", f"the messages came in the order {positions}")
    bodies: dict[str, bytes] = {}
    for one in receiver.received:
        if bodies.setdefault(one.id, one.body) != one.body:
            yield Violation("again", f"{one.id} came again with another body")

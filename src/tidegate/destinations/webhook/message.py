"""The body of a webhook: what docs/reference/webhook.schema.json describes, records as their source wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from tidegate.destinations.base import DeliveryKey, Target
from tidegate.destinations.outbox import message_id
from tidegate.destinations.records import Seen, entry
from tidegate.domain.instant import render_instant
from tidegate.domain.outgoing import Message, Route

TYPE: Final = "records"
HEAD_BYTES: Final = 4096
"""Room kept for what stands before the records; names are at most 200 characters."""


def messages(
    target: Target, route: Route, key: DeliveryKey, records: Sequence[Seen], max_body_bytes: int
) -> list[Message]:
    """Return the messages that carry ``records`` in their order, each at most ``max_body_bytes`` long."""
    made: list[Message] = []
    for part, texts in enumerate(_parts([entry(seen) for seen in records], max_body_bytes - HEAD_BYTES), start=1):
        position = route.last_position + part
        head = _head(target, route, key, part, position, len(texts))
        body = head[:-2] + b',"records":[' + b",".join(texts) + b"]}}"
        made.append(Message(message_id(route, key, part), position, part, len(texts), body))
    return made


def too_large(seen: Seen, max_body_bytes: int) -> str:
    """Return why a record cannot be sent in any message, "" if it can."""
    size = len(entry(seen))
    if size <= max_body_bytes - HEAD_BYTES:
        return ""
    return (
        f"The record takes {size} bytes, more than a message of {max_body_bytes} bytes (max_body_bytes) has room for."
    )


def _parts(texts: Sequence[bytes], most: int) -> Iterator[list[bytes]]:
    held: list[bytes] = []
    size = 0
    for text in texts:
        if held and size + len(text) + 1 > most:
            yield held
            held, size = [], 0
        held.append(text)
        size += len(text) + 1
    if held:
        yield held


def _head(target: Target, route: Route, key: DeliveryKey, part: int, position: int, count: int) -> bytes:
    return msgspec.json.encode(
        {
            "type": TYPE,
            "data": {
                "tenant_id": route.tenant_id,
                "installation": route.installation,
                "workflow": route.workflow,
                "connector": target.connector,
                "account": target.account_id,
                "stream": route.stream,
                "lane": route.lane,
                "run_id": key.run_id,
                "period": {
                    "start": render_instant(route.period.start),
                    "end": render_instant(route.period.end),
                },
                "batch": key.batch,
                "part": part,
                "position": position,
                "record_count": count,
            },
        }
    )

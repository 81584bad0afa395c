"""The body of a webhook: what docs/reference/webhook.schema.json describes, records as their source wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from tidegate.destinations.base import DeliveryKey, Target
from tidegate.destinations.outbox import message_id
from tidegate.destinations.records import Seen, entry
from tidegate.domain.outgoing import Message, Route
from tidegate.domain.run import Lane

TYPE: Final[Literal["records"]] = "records"
HEAD_BYTES: Final = 4096
"""Room kept for what stands before the records; names are at most 200 characters."""


_NO_RECORDS: Final = b'"records":[]}}'
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class RecordVersion(msgspec.Struct, frozen=True):
    """Which version of the record this is: `cursor` is its cursor value as an instant, null for a stream without one."""

    cursor: datetime | None
    content_hash: Annotated[
        str, msgspec.Meta(description="Equal for equal contents of one key; it means nothing else.")
    ]


class Entry(msgspec.Struct, frozen=True):
    """One record: its key by path, its version, and itself as the source wrote it."""

    key: Mapping[str, str | int | float | bool]
    version: RecordVersion
    record: Mapping[str, Any]


class Span(msgspec.Struct, frozen=True):
    """A half-open stretch of time, in UTC."""

    start: datetime
    end: datetime


class Data(msgspec.Struct, frozen=True):
    """Whose records of which stream, which batch of which run this is, and the records.

    `position` counts the messages of one installation and stream without a gap: later messages have greater ones.
    """

    tenant_id: str
    installation: str
    workflow: str
    connector: str
    account: str
    stream: str
    lane: Lane
    run_id: Count
    period: Span
    batch: Count
    part: Count
    position: Count
    record_count: Count
    records: tuple[Entry, ...]


class Body(msgspec.Struct, frozen=True):
    """The body of every webhook."""

    type: Literal["records"]
    data: Data


def messages(
    target: Target, route: Route, key: DeliveryKey, records: Sequence[Seen], max_body_bytes: int
) -> list[Message]:
    """Return the messages that carry ``records`` in their order, each at most ``max_body_bytes`` long."""
    made: list[Message] = []
    for part, texts in enumerate(_parts([entry(seen) for seen in records], max_body_bytes - HEAD_BYTES), start=1):
        position = route.last_position + part
        head = _head(target, route, key, part, position, len(texts))
        body = head + b'"records":[' + b",".join(texts) + b"]}}"
        made.append(Message(message_id(route, key, part, body), position, part, len(texts), body))
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
    """Return the body up to its records, which stand at the end of its data."""
    data = Data(
        tenant_id=route.tenant_id,
        installation=route.installation,
        workflow=route.workflow,
        connector=target.connector,
        account=target.account_id,
        stream=route.stream,
        lane=route.lane,
        run_id=key.run_id,
        period=Span(route.period.start.astimezone(UTC), route.period.end.astimezone(UTC)),
        batch=key.batch,
        part=part,
        position=position,
        record_count=count,
        records=(),
    )
    whole = msgspec.json.encode(Body(TYPE, data))
    assert whole.endswith(_NO_RECORDS)
    return whole.removesuffix(_NO_RECORDS)

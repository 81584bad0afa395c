"""Messages: what a person asks of the outbox: what waits, what died and why, to send it again or to drop it (SPEC 5, 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.domain.errors import InvalidInput
from tidegate.domain.outgoing import MessageState
from tidegate.engine import queries
from tidegate.engine.parts import Parts
from tidegate.store import messages
from tidegate.store.messages import Choice, MessageRow

if TYPE_CHECKING:
    from tidegate.store.database import Connection


async def list_messages(parts: Parts, choice: Choice, limit: int) -> list[MessageRow]:
    """Return up to ``limit`` messages, newest first. Raises InvalidInput if a named tenant or installation is not there."""
    found = await messages.messages(parts.pool, choice, limit)
    if not found and choice.tenant_id is not None:
        await queries.require_known(parts, choice.tenant_id, choice.installation)
    return found


async def show(parts: Parts, message_id: str) -> tuple[MessageRow, bytes]:
    """Return a message and its body as it is sent. Raises InvalidInput if there is none of that id."""
    found = await messages.messages(parts.pool, Choice(ids=[message_id]), 1)
    if not found:
        raise _unknown(message_id)
    return found[0], await messages.body(parts.pool, message_id)


async def replay(parts: Parts, choice: Choice) -> int:
    """Send settled messages again, under their ids and in their order; return how many. Those still open are not touched.

    Raises InvalidInput if an id, tenant, installation or stream is not there, or neither ids nor an installation are chosen.
    """
    if not choice.ids and choice.installation is None:
        raise InvalidInput("id", None, "is missing", "Give ids, or --installation TENANT/INSTALLATION with a range.")
    await _require_known(parts, choice)
    async with parts.pool.acquire() as connection, connection.transaction():
        there = {row.message_id for row in await messages.messages(connection, Choice(ids=choice.ids), len(choice.ids))}
        for message_id in choice.ids:
            if message_id not in there:
                raise _unknown(message_id)
        return await messages.replay(connection, choice, parts.clock.now())


async def drop(parts: Parts, choice: Choice, reason: str) -> int:
    """Mark messages as dropped, with ``reason`` and when; return how many. Chosen by ids, or an installation's dead letter.

    One in the dead letter leaves it; an open one is given up, so that its stream and its run go on without it (SPEC 5,
    "Coverage waits for the acknowledgement or the dead letter"). All or none. Raises InvalidInput without a reason; if an
    id, tenant, installation or stream is not there, or none is chosen; for a message that is acknowledged, dropped already,
    or in a sender's hands.
    """
    if not reason.strip():
        raise InvalidInput("reason", reason, "is empty", "Say why these messages are not wanted; it is kept.")
    either = "Give either ids, or --dead with --installation TENANT/INSTALLATION."
    if choice.ids and choice.parameters != Choice(ids=choice.ids).parameters:
        raise InvalidInput("id", choice.ids[0], "is not all that is chosen", either)
    if not choice.ids and (choice.installation is None or list(choice.states) != [MessageState.DEAD]):
        raise InvalidInput("id", None, "is missing", either)
    await _require_known(parts, choice)
    async with parts.pool.acquire() as connection, connection.transaction():
        dropped = await messages.drop(connection, choice, reason, parts.clock.now())
        for message_id in choice.ids:
            if message_id not in dropped:
                raise await _not_dropped(connection, message_id)
    return len(dropped)


_KEPT = {
    MessageState.OPEN: ("is in a sender's hands", "Try again when its attempt is over."),
    MessageState.ACKNOWLEDGED: ("is acknowledged: its receiver has it", "Leave it out."),
    MessageState.DROPPED: ("has been dropped already", "Leave it out."),
}
"""Why a message cannot be dropped that is in this state, and what to do."""


async def _not_dropped(connection: Connection, message_id: str) -> InvalidInput:
    found = await messages.messages(connection, Choice(ids=[message_id]), 1)
    if not found:
        return _unknown(message_id)
    problem, remedy = _KEPT[found[0].state]
    return InvalidInput("id", message_id, f"{problem}; nothing was dropped", remedy)


async def _require_known(parts: Parts, choice: Choice) -> None:
    if choice.tenant_id is not None:
        await queries.require_known(parts, choice.tenant_id, choice.installation)
    await queries.require_stream(parts, choice.tenant_id, choice.installation, choice.stream)


def _unknown(message_id: str) -> InvalidInput:
    return InvalidInput(
        "id", message_id, "is no message in the outbox", "`tidegate webhook list` shows those there are."
    )

"""Messages: what a person asks of the outbox: what waits, what died and why, and to send it again (SPEC 5, 8)."""

from __future__ import annotations

from tidegate.domain.errors import InvalidInput
from tidegate.engine import queries
from tidegate.engine.parts import Parts
from tidegate.store import messages
from tidegate.store.messages import Choice, MessageRow


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
    if choice.tenant_id is not None:
        await queries.require_known(parts, choice.tenant_id, choice.installation)
    await queries.require_stream(parts, choice.tenant_id, choice.installation, choice.stream)
    async with parts.pool.acquire() as connection, connection.transaction():
        there = {row.message_id for row in await messages.messages(connection, Choice(ids=choice.ids), len(choice.ids))}
        for message_id in choice.ids:
            if message_id not in there:
                raise _unknown(message_id)
        return await messages.replay(connection, choice, parts.clock.now())


def _unknown(message_id: str) -> InvalidInput:
    return InvalidInput(
        "id", message_id, "is no message in the outbox", "`tidegate webhook list` shows those there are."
    )

"""Tables `routes`, `outbox` and `delivered`, as writers use them: a batch enters the outbox with its run's ledger entry.

Every statement runs on the caller's connection, inside the transaction that also carries the checkpoint (SPEC 5). What
senders do stands in `store.sending`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.outgoing import Message, Route, Version
from tidegate.domain.period import Period
from tidegate.domain.run import Lane

if TYPE_CHECKING:
    from tidegate.store.database import Connection

_ENTER = """
with route as (
    insert into routes as t (chain_id, destination_id, whole_periods)
    select chain_id, $2, $3 from runs where id = $1
    on conflict (chain_id, destination_id) do update set whole_periods = excluded.whole_periods
    returning t.id, t.seed, t.last_position
)
select t.id, t.seed::text as seed, t.last_position, r.chain_id, r.tenant_id, i.name as installation, c.workflow, c.stream,
       r.lane, r.period_start, r.period_end, (select max(period_end) from coverage where chain_id = c.id) as watermark
  from route t, runs r join chains c on c.id = r.chain_id join installations i on i.id = c.installation_id
 where r.id = $1
"""


async def enter(connection: Connection, run_id: int, destination_id: int, *, whole_periods: bool) -> Route:
    """Return the route of a run's chain to a destination, locked until the transaction ends: batches get their order here.

    ``whole_periods``: whether its batches wait until a run is complete.
    """
    row = await connection.fetchrow(_ENTER, run_id, destination_id, whole_periods)
    assert row is not None, f"there is no run {run_id}"
    values = dict(row)
    period = Period(values.pop("period_start"), values.pop("period_end"))
    return Route(**{**values, "lane": Lane(row["lane"]), "period": period})


_NEWER = """
insert into delivered as d (route_id, key_hash, cursor_at, content_hash, requested_at)
select $1, v.* from unnest($2::bytea[], $3::timestamptz[], $4::bytea[], $5::timestamptz[])
                    as v(key_hash, cursor_at, content_hash, requested_at)
on conflict (route_id, key_hash) do update
   set cursor_at = excluded.cursor_at, content_hash = excluded.content_hash, requested_at = excluded.requested_at
 where excluded.cursor_at > d.cursor_at
    or ((d.cursor_at is null or excluded.cursor_at is null or excluded.cursor_at = d.cursor_at)
        and excluded.content_hash <> d.content_hash and excluded.requested_at >= d.requested_at)
returning key_hash, xmax = 0 as new
"""


async def newer(connection: Connection, route_id: int, versions: Sequence[Version]) -> dict[bytes, bool]:
    """Note ``versions``, one per key, as delivered; return the keys of those that were not yet, and whether the key is new.

    The version rule of SPEC 4: a greater cursor value wins; with an equal one, or none, other content requested later.
    """
    rows = await connection.fetch(
        _NEWER,
        route_id,
        [version.key_hash for version in versions],
        [version.cursor_at for version in versions],
        [version.content_hash for version in versions],
        [version.requested_at for version in versions],
    )
    return {row["key_hash"]: row["new"] for row in rows}


async def forget(connection: Connection, route_id: int, before: datetime) -> None:
    """Forget versions whose cursor value is before ``before``: no fetch reaches back there any more (SPEC 4)."""
    await connection.execute("delete from delivered where route_id = $1 and cursor_at < $2", route_id, before)


_ADD = """
insert into outbox (route_id, position, message_id, chain_id, tenant_id, run_id, batch, part, records, body, created_at)
select $1, m.position, m.id, $2, $3, $4, $5, m.part, m.records, m.body, $6
  from unnest($7::text[], $8::bigint[], $9::int[], $10::int[], $11::bytea[]) as m(id, position, part, records, body)
"""


async def add(
    connection: Connection, route: Route, run_id: int, batch: int, messages: Sequence[Message], now: datetime
) -> None:
    """Put one batch's messages behind those that wait; they may be sent as soon as the transaction commits."""
    await connection.execute(
        _ADD, route.id, route.chain_id, route.tenant_id, run_id, batch, now,
        [message.id for message in messages], [message.position for message in messages],
        [message.part for message in messages], [message.records for message in messages],
        [message.body for message in messages],
    )  # fmt: skip
    await connection.execute(
        "update routes set last_position = $2, not_before_at = coalesce(not_before_at, $3) where id = $1",
        route.id, messages[-1].position, now,
    )  # fmt: skip

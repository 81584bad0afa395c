"""Since when a stream has been failing, kept with its chain (SPEC 5, "Failures").

Only a failure writes here. A later success needs no entry: what covers the failed period has ended the failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.store.database import Connection

_NOTE = """
with failed as (
    select r.id as run_id, r.chain_id, greatest(r.due_at, s.planned_until) as due_at, r.period_end,
           coalesce(r.error ->> 'message', '') as message
      from runs r left join schedules s on s.chain_id = r.chain_id
     where r.id = any($1::bigint[]) and r.state = 'failed' and r.lane = 'live'
),
noted as (
    update chains c
       set failing_since = case when still.failing then c.failing_since else f.due_at end,
           failing_end = case when still.failing then c.failing_end else f.period_end end
      from failed f
      join chains before on before.id = f.chain_id
     cross join lateral (
           select before.failing_end is not null and before.failing_end > coalesce(
                      (select max(period_end) from coverage where chain_id = f.chain_id), '-infinity') as failing) still
     where c.id = f.chain_id
    returning c.id, c.tenant_id, c.installation_id, c.stream, c.failing_since, f.due_at, f.message
)
select n.tenant_id, i.name as installation, n.stream, n.failing_since, n.due_at, n.message, i.pause_after_failing_days
  from noted n join installations i on i.id = n.installation_id
"""


@dataclass(frozen=True, slots=True)
class Failing:
    """A stream whose run has just failed. ``failing_since``: the newest due date when the first run since the last success
    failed; ``due_at``: the newest now, also if what failed again is an older piece (`catch_up: each`).

    ``pause_after_failing_days``: the installation's own, None for the deployment's.
    """

    tenant_id: str
    installation: str
    stream: str
    failing_since: datetime
    due_at: datetime
    message: str
    pause_after_failing_days: int | None


async def note(connection: Connection, run_ids: Sequence[int]) -> list[Failing]:
    """Note those of these live runs that have failed, in the transaction that failed them; return their streams."""
    return [Failing(**row) for row in await connection.fetch(_NOTE, run_ids)]


async def forget(connection: Connection, installation_id: int) -> None:
    """Count the failing days of an installation's streams anew: a person has looked, and resumed it."""
    await connection.execute(
        "update chains set failing_since = null, failing_end = null where installation_id = $1 and failing_since is not null",
        installation_id,
    )

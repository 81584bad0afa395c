"""Table `quarantine`: records that could not be delivered, with their reasons (SPEC 4)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.store.database import Connection
    from tidegate.store.leases import LeasedRun


async def add(connection: Connection, run: LeasedRun, records: Sequence[tuple[str, bytes]], now: datetime) -> None:
    """Keep (reason, record as the source sent it) of one batch; a record kept before is not kept twice."""
    await connection.execute(
        """insert into quarantine (tenant_id, chain_id, run_id, reason, record, quarantined_at)
           select $1, $2, $3, q.reason, q.record, $6 from unnest($4::text[], $5::bytea[]) as q(reason, record)
           on conflict (chain_id, digest) do nothing""",
        run.tenant_id, run.chain_id, run.id, [reason for reason, _ in records], [record for _, record in records], now,
    )  # fmt: skip

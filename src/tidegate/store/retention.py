"""Retention: what is old enough goes, in small batches. One table says what, and for how long it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

BATCH: Final = 1000
"""Rows deleted in one transaction, so that no lock is held for long."""
COUNT_LIMIT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Ageing:
    """One kind of row that goes when it is old.

    ``what``: its name for people, and in the variable ``TIDEGATE_KEEP_<WHAT>_DAYS``. ``keep``: for how long it is kept if
    that says nothing. ``old``: the condition on row ``t`` that makes it go, with ``$1`` the instant before which it ended;
    an index must find it.
    """

    what: str
    keep: timedelta
    table: str
    key: str
    old: str

    @property
    def _some(self) -> str:
        return f"select {self.key} from {self.table} t where {self.old} limit $2"

    async def delete(self, connection: Connection | Pool, before: datetime) -> int:
        """Delete up to `BATCH` rows that ended before ``before`` and that nobody holds; return how many."""
        gone: int = await connection.fetchval(
            f"""with old as ({self._some} for update skip locked),
                gone as (delete from {self.table} g using old where g.{self.key} = old.{self.key} returning 1)
                select count(*) from gone""",
            before, BATCH,
        )  # fmt: skip
        return gone

    async def count(self, connection: Connection | Pool, before: datetime) -> int:
        """Return how many rows would go, at most `COUNT_LIMIT`."""
        found: int = await connection.fetchval(f"select count(*) from ({self._some}) s", before, COUNT_LIMIT)
        return found


_OLD_RUN = """
t.finished_at < $1
and (t.lane <> 'live' or t.period_end < (select max(c.period_end) from coverage c where c.chain_id = t.chain_id))
and t.period_end < (select max(n.period_end) from runs n where n.chain_id = t.chain_id and n.lane = t.lane)
and not exists (select 1 from quarantine q where q.run_id = t.id)
and not exists (select 1 from outbox o where o.run_id = t.id)
"""
"""A run stays while it explains a gap, while the next period begins where it ended (its report has the change token), while
it is the newest of its chain and lane, or while a record of it is in quarantine or a message in the outbox. Coverage keeps
its number and count."""

RUNS: Final = Ageing("runs", timedelta(days=90), "runs", "id", _OLD_RUN)
MESSAGES: Final = Ageing(
    "messages", timedelta(days=7), "outbox", "message_id", "t.state = 'acknowledged' and t.settled_at < $1"
)
"""Acknowledged webhooks are kept to be replayed; the dead letter is kept until it is."""
ALERTS: Final = Ageing("alerts", timedelta(days=90), "alerts", "id", "t.resolved_at < $1")
"""Alerts whose cause has been gone for long; open ones stay."""
COMMITS: Final = "commits"
"""Notes in other databases (`tidegate_commits`) of runs that ended long ago; the destinations themselves delete them."""
COMMITS_KEEP: Final = timedelta(days=7)

AGEINGS: Final[Sequence[Ageing]] = (RUNS, MESSAGES, ALERTS)
"""Everything in this database that goes when it is old."""


def kept_for() -> dict[str, timedelta]:
    """Return for how long each kind is kept if nothing else is said."""
    return {**{ageing.what: ageing.keep for ageing in AGEINGS}, COMMITS: COMMITS_KEEP}


async def ended(connection: Connection | Pool, run_ids: Sequence[int], before: datetime) -> list[int]:
    """Return those of the runs that ended before ``before``, or of which nothing is known any more."""
    rows = await connection.fetch(
        """select a.id from unnest($1::bigint[]) as a(id)
            where not exists (select 1 from runs r where r.id = a.id and (r.finished_at is null or r.finished_at >= $2))""",
        run_ids,
        before,
    )
    return [row["id"] for row in rows]

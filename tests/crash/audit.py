"""What must be true after a crash, and the trigger that remembers every row ever written."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import asyncpg

from tests.crash.source import CURSORS, Shop

AUDIT = """
create schema audit;
create table audit.applied (stream text, operation text, id bigint, at timestamptz, revision int);
create function audit.note() returns trigger language plpgsql as $$
begin
  insert into audit.applied
  values (substr(tg_table_name, 7), tg_op, (to_jsonb(new) ->> 'id')::bigint, new._tidegate_cursor,
          (to_jsonb(new) ->> 'rev')::int);
  return null;
end $$;
create function audit.attach() returns event_trigger language plpgsql as $$
declare made record;
begin
  for made in select * from pg_event_trigger_ddl_commands()
               where command_tag = 'CREATE TABLE' and schema_name = 'synced' and object_identity not like '%tidegate_commits'
  loop
    execute format('create trigger audit after insert or update or delete on %s for each row execute function audit.note()',
                   made.object_identity);
  end loop;
end $$;
create event trigger audit on ddl_command_end when tag in ('CREATE TABLE') execute function audit.attach();
"""
"""Every table that Tidegate makes is watched from its first row on; what rolls back leaves no trace here either."""

_ROWS = "select id, {cursor} as at, rev from synced.crash_{stream}"
_RUNS = """
select r.id, c.stream, r.state, r.batch, r.epoch, r.period_start, r.period_end, r.read_count as read,
       r.inserted_count as inserted, r.updated_count as updated, r.unchanged_count as unchanged,
       r.quarantined_count as quarantined, r.misfit_count as misfits
  from runs r join chains c on c.id = r.chain_id order by r.id
"""


class Violation(AssertionError):
    """Something that must be true is not."""


def require(true: bool, what: str) -> None:
    """Raise Violation unless ``true``."""
    if not true:
        raise Violation(what)


async def inspect(
    ledger: asyncpg.Connection[asyncpg.Record],
    rows: asyncpg.Connection[asyncpg.Record],
    shop: Shop,
    begin: datetime,
    period: timedelta,
    rounds: int,
    *,
    elsewhere: bool,
) -> None:
    """Raise Violation unless, ``rounds`` periods covered, everything is as it would be without a crash (SPEC 5)."""
    await rows_are_the_shops(rows, shop)
    await _chains_are_whole(ledger, begin, period, rounds)
    runs = await ledger.fetch(_RUNS)
    _runs_tell_what_happened(runs, shop, begin)
    applied = await rows.fetchval("select count(*) from audit.applied")
    told = sum(run["inserted"] + run["updated"] for run in runs)
    require(told == applied, f"runs tell of {told} rows written, {applied} were")
    kept = await ledger.fetchval("select count(*) from quarantine")
    require(kept == shop.poison, f"{kept} records in quarantine, {shop.poison} are poison")
    if elsewhere:
        await _commits_agree(rows, runs)


async def rows_are_the_shops(rows: asyncpg.Connection[asyncpg.Record], shop: Shop) -> None:
    """Nothing lost, nothing twice: rows equal the shop's records, and each version was written exactly once."""
    for stream, cursor in CURSORS.items():
        found = await rows.fetch(_ROWS.format(cursor=cursor, stream=stream))
        there = {(row["id"], row["at"], row["rev"]) for row in found}
        wanted = {
            (record["id"], datetime.fromisoformat(record[cursor]), record["rev"])
            for record in shop.records[stream]
            if "id" in record
        }
        require(there == wanted and len(found) == len(wanted), f"{stream}: lost or wrong {wanted ^ there}")
    written = Counter(
        (row["stream"], row["id"], row["at"], row["revision"]) for row in await rows.fetch("table audit.applied")
    )
    twice = {version: times for version, times in written.items() if times > 1}
    require(not twice, f"versions written more than once: {twice}")
    require(written.keys() == shop.versions, f"versions not as shown: {written.keys() ^ shop.versions}")


async def _chains_are_whole(
    ledger: asyncpg.Connection[asyncpg.Record], begin: datetime, period: timedelta, rounds: int
) -> None:
    for chain in await ledger.fetch("select id from chains"):
        links = await ledger.fetch(
            "select period_start, period_end, kind from coverage where chain_id = $1 order by period_end", chain["id"]
        )
        expected = [(begin + n * period, begin + (n + 1) * period, "covered") for n in range(rounds)]
        require([tuple(link) for link in links] == expected, f"chain {chain['id']}: {links}")


def _runs_tell_what_happened(runs: list[asyncpg.Record], shop: Shop, begin: datetime) -> None:
    """Every run succeeded, and its counts are those of a run that nothing happened to."""
    latest = max(run["period_end"] for run in runs)
    for run in runs:
        name = f"run {run['id']} of {run['stream']}"
        require(run["state"] == "succeeded", f"{name} is {run['state']}")
        ends = run["inserted"] + run["updated"] + run["unchanged"] + run["quarantined"]
        require(run["read"] == ends, f"{name}: read {run['read']}, but {ends} ended somewhere: {dict(run)}")
        if run["period_end"] == latest:  # the shop shows an edited record only at its latest version
            shown = shop.shows(run["stream"], run["period_start"], run["period_end"], begin)
            require(run["read"] == shown, f"{name}: read {run['read']} of {shown} records shown: {dict(run)}")


async def _commits_agree(rows: asyncpg.Connection[asyncpg.Record], runs: list[asyncpg.Record]) -> None:
    """The commits elsewhere name no run, batch or epoch that the ledger does not have."""
    commits = {row["run_id"]: row for row in await rows.fetch("table synced.tidegate_commits")}
    known = {run["id"]: run for run in runs}
    require(commits.keys() <= known.keys(), f"commits of unknown runs: {commits.keys() - known.keys()}")
    for run_id, run in known.items():
        commit = commits.get(run_id)
        require(commit is not None, f"run {run_id} has no commit")
        assert commit is not None
        require(commit["batch"] == run["batch"], f"run {run_id}: batch {commit['batch']} there, {run['batch']} here")
        require(commit["epoch"] <= run["epoch"], f"run {run_id}: epoch {commit['epoch']} there, {run['epoch']} here")

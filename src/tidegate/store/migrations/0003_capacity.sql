-- Limits, kept where every process sees them (SPEC 3) --------------------------------------------------------------

alter table accounts
    add column rate_per_second float8 check (rate_per_second > 0),   -- null: no rate is known
    add column rate_burst      int not null default 1 check (rate_burst > 0),
    add column free_at         timestamptz not null default '-infinity',  -- when every request granted so far has had its turn
    add column hold_until      timestamptz,                          -- the source asked for a pause, of all that is this account's
    add column hold_reason     text not null default '';
create index accounts_held on accounts (hold_until) where hold_until is not null;

alter table connections
    add column concurrency_limit int check (concurrency_limit > 0);  -- null: only its account's
create index connections_limited on connections (id) where concurrency_limit is not null;
create index connections_unauthorised on connections (id) where unauthorised_at is not null;

-- Failures: who paused an installation, and since when a stream has been failing (SPEC 5) --------------------------

alter table installations
    add column paused_by text not null default '' check (paused_by in ('', 'person', 'unauthorised', 'failing')),
    add column pause_after_failing_days int check (pause_after_failing_days > 0);  -- null: the deployment's
update installations
   set paused_by = case when paused_reason like 'unauthorised:%' then 'unauthorised' else 'person' end
 where paused_at is not null;
alter table installations add check ((paused_at is null) = (paused_by = ''));
create index installations_paused on installations (id) where paused_at is not null;

alter table chains
    add column failing_since timestamptz,                -- the due date of the first run that failed since the last success
    add column failing_end   timestamptz,                -- its period's end: what covers that has ended the failure
    add check ((failing_since is null) = (failing_end is null));
create index chains_failing on chains (id) where failing_since is not null;
create index runs_unproven on runs (chain_id, period_end) where state = 'unproven';

-- What a person should look at: raised once, resolved when the cause is gone ---------------------------------------

create table alerts (
    id               bigint generated always as identity primary key,
    kind             text not null,
    severity         text not null check (severity in ('warning', 'critical')),
    subject          text not null,                      -- what it is about; at most one of a kind is open for it
    tenant_id        text,
    installation_id  bigint references installations,
    chain_id         bigint references chains,
    run_id           bigint,
    message          text not null,
    remedy           text not null,
    raised_at        timestamptz not null,
    resolved_at      timestamptz check (resolved_at >= raised_at)
);
create unique index alerts_open on alerts (kind, subject) where resolved_at is null;

-- Quarantine: what became of records that left it ------------------------------------------------------------------

alter table quarantine
    add column requested_at timestamptz,                 -- when its page was asked for: orders versions (SPEC 4)
    add column retries      int not null default 0,
    add column retried_at   timestamptz;

create table quarantine_exits (
    id             bigint generated always as identity primary key,
    quarantine_id  bigint not null,
    tenant_id      text not null,
    chain_id       bigint not null references chains,
    run_id         bigint not null,                      -- that had found it
    action         text not null check (action in ('delivered', 'dropped')),
    digest         bytea not null,
    reason         text not null,                        -- why it was in quarantine
    note           text not null,                        -- why it was let out
    person         text not null,
    at             timestamptz not null
);
create index quarantine_exits_dropped on quarantine_exits (chain_id, digest) where action = 'dropped';

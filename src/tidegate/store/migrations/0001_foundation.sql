-- Tenants and what they connect ------------------------------------------------------------------------------------

create table tenants (
    id          text primary key check (id <> ''),
    name        text not null default '',
    created_at  timestamptz not null
);

-- A platform account: the other end of connections, whoever owns them. Its limit holds across tenants and processes.
create table accounts (
    id                 bigint generated always as identity primary key,
    connector          text not null,
    name               text not null,
    concurrency_limit  int not null check (concurrency_limit > 0),
    unique (connector, name)
);

create table connections (
    id             bigint generated always as identity primary key,
    tenant_id      text not null references tenants,
    name           text not null,
    connector      text not null,
    account_id     bigint not null references accounts,
    settings       jsonb not null,
    sealed         bytea not null,                       -- secrets, sealed for (tenant, name)
    fingerprint    text not null,                        -- of settings and secrets, keyed: tells a change, not a value
    unauthorised_at timestamptz,
    unauthorised_reason text not null default '',
    unique (tenant_id, name),
    unique (tenant_id, id)
);

create table destinations (
    id           bigint generated always as identity primary key,
    name         text not null unique,
    kind         text not null,
    settings     jsonb not null,
    sealed       bytea not null,
    fingerprint  text not null
);

create table installations (
    id              bigint generated always as identity primary key,
    tenant_id       text not null references tenants,
    name            text not null,
    connection_id   bigint not null,
    destination_id  bigint not null references destinations,
    paused_at       timestamptz,
    paused_reason   text not null default '',
    unique (tenant_id, name),
    unique (tenant_id, id),
    foreign key (tenant_id, connection_id) references connections (tenant_id, id)  -- tenants never share a connection
);

-- Chains: one per (installation, workflow, stream), and per platform account (SPEC 2.12) ---------------------------

create table chains (
    id               bigint generated always as identity primary key,
    tenant_id        text not null,
    installation_id  bigint not null,
    workflow         text not null,
    stream           text not null,
    account_id       bigint not null references accounts,
    start_at         timestamptz not null,
    unique (installation_id, workflow, stream, account_id),
    foreign key (tenant_id, installation_id) references installations (tenant_id, id)
);

create table schedules (
    chain_id       bigint primary key references chains,
    rule           jsonb not null,
    received_at    timestamptz not null,                 -- when this rule was received
    planned_until  timestamptz not null,                 -- due dates up to here have become runs, or passed in a pause
    next_due_at    timestamptz,                          -- null: no further due date
    paused_at      timestamptz
);
create index schedules_due on schedules (next_due_at);

-- Runs: the only truth about work ------------------------------------------------------------------------------------

create table runs (
    id              bigint generated always as identity primary key,
    chain_id        bigint not null references chains,
    tenant_id       text not null,
    account_id      bigint not null,
    lane            text not null check (lane in ('live', 'backfill')),
    trigger         text not null check (trigger in ('schedule', 'manual', 'install', 'event')),
    state           text not null check (state in ('waiting', 'queued', 'running', 'retrying', 'succeeded', 'unproven',
                                                   'failed', 'superseded', 'dropped')),
    first_due_at    timestamptz not null,                -- the oldest due date this run stands for (coalesce)
    due_at          timestamptz not null check (due_at >= first_due_at),
    period_start    timestamptz,                         -- known once the run has started (SPEC 2.7)
    period_end      timestamptz not null,
    not_before_at   timestamptz not null,                -- the planned run date
    queued_at       timestamptz,
    started_at      timestamptz,                         -- the run date: its first attempt's start
    finished_at     timestamptz,
    attempt         int not null default 0,              -- attempts in a row without progress
    epoch           int not null default 0,
    lease_until     timestamptz,
    worker          text,
    batch           int not null default 0,
    checkpoint      bytea,
    read_count        bigint not null default 0,
    inserted_count    bigint not null default 0,
    updated_count     bigint not null default 0,
    unchanged_count   bigint not null default 0,
    misfit_count      bigint not null default 0,
    quarantined_count bigint not null default 0,
    report          jsonb,                               -- what the fetch says took effect
    error           jsonb,                               -- the last failure
    unique (chain_id, lane, period_end),
    check (period_start < period_end),
    check ((state = 'running') = (lease_until is not null))
);
create unique index runs_one_active on runs (chain_id, lane) where state in ('queued', 'running', 'retrying');
create index runs_to_dispatch on runs (not_before_at) where state in ('waiting', 'retrying');
create index runs_in_hand on runs (account_id) where state in ('queued', 'running');
create index runs_of_tenant on runs (tenant_id, id);

-- The coverage chain (SPEC 5): gap, overlap, fork, second head, backward and empty rows are all refused --------------

create table coverage (
    chain_id       bigint not null references chains,
    period_start   timestamptz not null,
    period_end     timestamptz not null,
    previous_end   timestamptz,
    kind           text not null check (kind in ('covered', 'waived')),
    run_id         bigint references runs,
    reason         text not null default '',
    records        bigint not null default 0,
    committed_at   timestamptz not null,
    primary key (chain_id, period_end),
    unique (chain_id, previous_end),
    check (period_start < period_end),
    check (previous_end = period_start),
    check (kind = 'waived' or run_id is not null),
    check (kind = 'covered' or reason <> ''),
    foreign key (chain_id, previous_end) references coverage (chain_id, period_end) deferrable initially immediate
);
create unique index coverage_one_head on coverage (chain_id) where previous_end is null;

-- Records that could not be delivered --------------------------------------------------------------------------------

create table quarantine (
    id              bigint generated always as identity primary key,
    tenant_id       text not null,
    chain_id        bigint not null references chains,
    run_id          bigint not null references runs,
    reason          text not null,
    record          bytea not null,                      -- JSON text as the source sent it; may hold what jsonb cannot
    digest          bytea not null generated always as (sha256(record)) stored,
    quarantined_at  timestamptz not null,
    unique (chain_id, digest)                            -- a record read again within the lookback is one record
);
create index quarantine_of_run on quarantine (run_id);

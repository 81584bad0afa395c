-- Batches that wait for their destination's acknowledgement (SPEC 5, "Webhook" and "Files") -------------------------

-- A route: one chain's way to one destination. Its batches are sent in the order of their positions, by one sender at a time.
create table routes (
    id              bigint generated always as identity primary key,
    chain_id        bigint not null references chains,
    destination_id  bigint not null references destinations,
    seed            uuid not null default gen_random_uuid(),  -- message ids are derived from it
    whole_periods   boolean not null,                    -- batches wait until a run of the chain is complete
    last_position   bigint not null default 0,
    not_before_at   timestamptz,                         -- when the next batch may be sent; null: nothing to send
    failing_since   timestamptz,                         -- the first failed attempt since the last acknowledgement
    error           jsonb,                               -- that of the last failed attempt
    epoch           int not null default 0,
    lease_until     timestamptz,
    sender          text,
    unique (chain_id, destination_id)
);
create index routes_to_send on routes (not_before_at) where not_before_at is not null;

create table outbox (
    route_id       bigint not null references routes,
    position       bigint not null,
    message_id     text not null unique,
    chain_id       bigint not null references chains,
    tenant_id      text not null,
    run_id         bigint not null references runs,
    batch          int not null,
    part           int not null,
    records        int not null check (records > 0),
    body           bytea not null,
    state          text not null default 'open' check (state in ('open', 'acknowledged', 'dead')),
    created_at     timestamptz not null,
    attempts       int not null default 0,
    attempted_at   timestamptz,
    settled_at     timestamptz,
    status         int,                                  -- the last attempt's HTTP status, null for none
    answer         text not null default '',             -- why it failed, with the reply's beginning, secrets masked
    primary key (route_id, position),
    unique (run_id, batch, part, route_id),
    check ((state = 'open') = (settled_at is null))
);
create index outbox_open on outbox (route_id, position) where state = 'open';
create index outbox_dead on outbox (chain_id) where state = 'dead';
create index outbox_settled on outbox (settled_at) where state = 'acknowledged';

-- What was handed over, by version: the destination cannot tell (SPEC 4, "Versions").
create table delivered (
    route_id      bigint not null references routes,
    key_hash      bytea not null,
    cursor_at     timestamptz,                           -- null: the stream has no cursor
    content_hash  bytea not null,
    requested_at  timestamptz not null,
    primary key (route_id, key_hash)
);
create index delivered_to_prune on delivered (route_id, cursor_at) where cursor_at is not null;

-- A run that is complete but for acknowledgements is *delivering*: it ends when its route has nothing open up to a position.
alter table runs
    add column ends_as text check (ends_as in ('succeeded', 'unproven')),
    add column waits_for_route bigint references routes,
    add column waits_for_position bigint,
    drop constraint runs_state_check,
    add constraint runs_state_check check (state in ('waiting', 'queued', 'running', 'retrying', 'delivering', 'succeeded',
                                                     'unproven', 'failed', 'superseded', 'dropped')),
    add constraint runs_delivering_check check ((state = 'delivering') = (waits_for_position is not null)
                                                and (ends_as is null) = (waits_for_position is null)
                                                and (waits_for_route is null) = (waits_for_position is null));
drop index runs_one_active;
create unique index runs_one_active on runs (chain_id, lane) where state in ('queued', 'running', 'retrying', 'delivering');
create index runs_delivering on runs (waits_for_route) where state = 'delivering';

-- Catch-up in pieces, backfills, waivers and compaction (SPEC 2.8 to 2.11, 4, 5). Every column has a default, so that
-- processes of the revision before go on beside this one.

alter table runs
    add column bounded     boolean not null default false,  -- fetched to its end, edited streams too: a later run follows
    add column follows_at  timestamptz;                     -- starts only once the chain is covered to here; null: at once

alter table schedules
    add column held_until  timestamptz;                     -- planned ahead far enough: looked at again then, or as soon
create index schedules_held on schedules (held_until)       -- as coverage moves on, whichever is first
    where held_until is not null;
comment on column schedules.planned_until is 'due dates up to here have passed: they have become runs, will (held_until), '
    'or passed in a pause';

alter table coverage
    add column periods     int not null default 1 check (periods > 0);  -- how many periods compaction made this one of

alter table chains
    add column compact_at  timestamptz not null default '-infinity';    -- when its old coverage is looked at again
create index chains_to_compact on chains (compact_at);

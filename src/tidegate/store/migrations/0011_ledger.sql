-- Which ledger this is: its id is in the key of its notes in other databases (SPEC 5, `tidegate_commits`). A backup keeps it.
create table ledger (
    one         boolean primary key default true check (one),
    id          uuid not null default gen_random_uuid(),
    alone_from  timestamptz not null                     -- by then no worker is left of a revision that knows no such id
);
insert into ledger (alone_from)
select case when exists (select from runs) then now() + interval '1 day' else '-infinity' end;

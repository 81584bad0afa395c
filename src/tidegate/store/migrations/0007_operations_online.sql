-- outside a transaction
create index concurrently if not exists runs_ended on runs (finished_at) where finished_at is not null;
create index concurrently if not exists runs_waiting on runs (chain_id) where state = 'waiting';

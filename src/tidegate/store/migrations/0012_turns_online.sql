-- outside a transaction
create index concurrently if not exists runs_turns on runs (lane, tenant_id, not_before_at) where state in ('waiting', 'retrying');

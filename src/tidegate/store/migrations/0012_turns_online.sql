-- outside a transaction
create index concurrently if not exists runs_turns on runs (lane, tenant_id, not_before_at) where state in ('waiting', 'retrying');
create index concurrently if not exists runs_failed_backfill on runs (chain_id) where lane = 'backfill' and state in ('failed', 'unproven');

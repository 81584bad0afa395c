-- outside a transaction
create index concurrently if not exists routes_awake on routes (destination_id, not_before_at) where not_before_at is not null;

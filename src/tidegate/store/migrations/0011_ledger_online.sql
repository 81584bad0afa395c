-- outside a transaction
create index concurrently if not exists alerts_resolved on alerts (resolved_at) where resolved_at is not null;

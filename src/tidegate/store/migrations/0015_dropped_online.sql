-- outside a transaction
create index concurrently if not exists outbox_dead_letter on outbox (chain_id) where state = 'dead' and dropped_at is null;

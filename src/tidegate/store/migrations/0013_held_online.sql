-- outside a transaction
create index concurrently if not exists schedules_not_held on schedules (next_due_at) where held_until is null;
drop index concurrently if exists schedules_due;

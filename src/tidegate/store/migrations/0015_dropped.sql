-- A message in the dead letter that nobody wants any more (SPEC 5): marked, and kept as long as the others there.
alter table outbox
    add column dropped_at     timestamptz,               -- not null: in state dead, and a person has dropped it
    add column dropped_reason text not null default '';

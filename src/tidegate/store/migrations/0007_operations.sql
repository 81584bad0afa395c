-- The ledger outlives the runs that wrote it (SPEC 5): a run goes when it is old, its number stays in the chain's row.
-- A foreign key would need an index on the largest table, or set null what is evidence.
alter table coverage drop constraint coverage_run_id_fkey;

-- OAuth tokens: beside the connection, for they change by themselves; what a person configures does not ---------------

create table connection_tokens (
    connection_id  bigint primary key references connections on delete cascade,
    sealed         bytea,                                -- sealed for (tenant, name); null before the first renewal
    renewed_at     timestamptz
);

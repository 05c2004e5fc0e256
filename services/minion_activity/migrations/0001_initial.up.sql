-- The audit: what agents did, how long it took, what it cost.

-- Rows never change: the app role may read and insert, nothing else. Partitioned by ranges of the UUIDv7 id, which begins
-- with the time it was made: so a row stays its own key, and a month can go as a whole. The partitions of months are
-- made by activity.make_partitions() (functions.sql); rows of other months wait in the default one.
-- '' and 0 stand for what wasn't given, as in the contract, NULL where that would be ambiguous.
CREATE TABLE activity.activities (
    tenant_id             uuid        NOT NULL,
    activity_id           uuid        NOT NULL,
    agent_id              uuid,
    session_id            uuid,
    run_id                uuid,
    start_time            timestamptz NOT NULL,
    record_time           timestamptz NOT NULL DEFAULT now(),
    duration_microseconds bigint      CHECK (duration_microseconds >= 0),
    agent_revision        bigint      NOT NULL,
    input_tokens          bigint      NOT NULL,
    output_tokens         bigint      NOT NULL,
    cached_tokens         bigint      NOT NULL,
    reasoning_tokens      bigint      NOT NULL,
    cost_nanos            bigint      CHECK (cost_nanos >= 0),
    step_sequence         integer     NOT NULL,
    byte_count            integer     NOT NULL, -- what the row takes on the wire, at most, so that replies can be bounded
    kind                  text        NOT NULL CHECK (kind IN ('run', 'llm_call', 'tool_call', 'inference', 'custom')),
    status                text        NOT NULL CHECK (status IN ('succeeded', 'failed', 'canceled', 'unknown')),
    currency              text        NOT NULL, -- '' where there is no cost
    name                  text        NOT NULL,
    user_id               text        NOT NULL,
    principal             text        NOT NULL,
    trace_id              text        NOT NULL,
    error_reason          text        NOT NULL,
    error_message         text        NOT NULL,
    tools_used            text[],
    input                 jsonb,
    output                jsonb,
    metadata              jsonb,
    PRIMARY KEY (tenant_id, activity_id),
    CHECK (get_byte(uuid_send(activity_id), 6) >> 4 = 7) -- of version 7; Postgres has a function for it from 17 on
) PARTITION BY RANGE (activity_id);

-- Each list has an index in its own order.
CREATE INDEX activities_by_time ON activity.activities (tenant_id, start_time DESC, activity_id DESC);
CREATE INDEX activities_of_agent ON activity.activities (tenant_id, agent_id, start_time DESC, activity_id DESC)
    INCLUDE (kind, agent_revision) WHERE agent_id IS NOT NULL;
CREATE INDEX activities_of_session ON activity.activities (tenant_id, session_id, start_time DESC, activity_id DESC)
    WHERE session_id IS NOT NULL;
CREATE INDEX activities_of_run ON activity.activities (tenant_id, run_id, start_time DESC, activity_id DESC)
    WHERE run_id IS NOT NULL;
-- What an agent's figures come of, here and above, so that they are read without the rows and their contents.
CREATE INDEX activities_runs ON activity.activities (tenant_id, agent_id, start_time)
    INCLUDE (agent_revision, status, duration_microseconds, input_tokens, output_tokens, cached_tokens,
             reasoning_tokens, cost_nanos, currency) WHERE kind = 'run' AND agent_id IS NOT NULL;
-- For searches by the caller's own data; rows that have none cost it nothing.
CREATE INDEX activities_metadata ON activity.activities USING gin (metadata jsonb_path_ops) WHERE metadata IS NOT NULL;

-- Vacuumed often, as each partition is: an index alone answers only for pages that were.
CREATE TABLE activity.activities_default PARTITION OF activity.activities DEFAULT
    WITH (autovacuum_vacuum_insert_scale_factor = 0.02);

-- Nobody reaches a partition but through the table: it is granted to nobody, and has no policy but its owner's.
ALTER TABLE activity.activities_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE activity.activities_default FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON activity.activities_default TO minion_activity_owner USING (true);

ALTER TABLE activity.activities ENABLE ROW LEVEL SECURITY;
ALTER TABLE activity.activities FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON activity.activities TO minion_activity_owner USING (true);
CREATE POLICY app ON activity.activities TO minion_activity_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON activity.activities TO minion_activity_app;

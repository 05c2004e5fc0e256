-- What runs: runs with their steps and events, what they were charged, and the outbox of their audit.

-- updated_at is the database's business, whoever writes.
CREATE FUNCTION gateway.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

-- Agents as runs were accepted with them: contents and tools together, filed under their SHA-256. A run that is
-- recovered needs no registry, and goes on with what it began with.
CREATE TABLE gateway.agent_snapshots (
    tenant_id   uuid        NOT NULL,
    digest      bytea       NOT NULL,
    snapshot    json        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, digest)
);

-- A turn. `epoch` and `version` are its fence: the lease under which it is driven, and the change that it is at.
-- `lease_until` is in no index, so that renewing a lease rewrites none.
CREATE TABLE gateway.runs (
    tenant_id           uuid        NOT NULL,
    run_id              uuid        NOT NULL,
    session_id          uuid        NOT NULL,
    agent_id            uuid        NOT NULL,
    agent_revision      bigint      NOT NULL,
    agent_digest        bytea       NOT NULL,
    user_id             text        NOT NULL,
    principal           text        NOT NULL,
    parent_run_id       uuid,
    request_id          uuid,
    request_digest      bytea,
    state               text        NOT NULL CHECK (
        state IN ('SUBMITTED', 'WORKING', 'INPUT_REQUIRED', 'AUTH_REQUIRED', 'COMPLETED', 'FAILED', 'CANCELED',
                  'REJECTED')),
    input               text        NOT NULL,
    metadata            jsonb       NOT NULL,
    streamed            boolean     NOT NULL,
    answer              text        NOT NULL DEFAULT '',
    error_reason        text,
    error_message       text,
    input_tokens        bigint      NOT NULL DEFAULT 0,
    output_tokens       bigint      NOT NULL DEFAULT 0,
    cached_tokens       bigint      NOT NULL DEFAULT 0,
    reasoning_tokens    bigint      NOT NULL DEFAULT 0,
    cost_nanos          bigint      NOT NULL DEFAULT 0,
    unpriced_steps      integer     NOT NULL DEFAULT 0,
    step_count          integer     NOT NULL,
    recovery_count      integer     NOT NULL DEFAULT 0,
    last_event_sequence bigint      NOT NULL,
    epoch               bigint      NOT NULL,
    version             bigint      NOT NULL DEFAULT 0,
    owner               uuid,
    lease_until         timestamptz,
    trace_id            text        NOT NULL,
    span_id             text        NOT NULL,
    create_time         timestamptz NOT NULL DEFAULT now(),
    start_time          timestamptz,
    end_time            timestamptz,
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, run_id)
) WITH (fillfactor = 70);
CREATE TRIGGER runs_updated_at BEFORE UPDATE ON gateway.runs FOR EACH ROW EXECUTE FUNCTION gateway.set_updated_at();
CREATE UNIQUE INDEX runs_request ON gateway.runs (tenant_id, request_id) WHERE request_id IS NOT NULL;
CREATE UNIQUE INDEX runs_active ON gateway.runs (tenant_id, session_id)
    WHERE parent_run_id IS NULL AND state IN ('WORKING', 'INPUT_REQUIRED', 'AUTH_REQUIRED');
CREATE INDEX runs_queue ON gateway.runs (tenant_id, session_id, run_id) WHERE state = 'SUBMITTED';
-- The lease picker's: as long as what is at work now, across tenants.
CREATE INDEX runs_working ON gateway.runs (run_id) WHERE state = 'WORKING';
CREATE INDEX runs_session ON gateway.runs (tenant_id, session_id, run_id);
CREATE INDEX runs_agent ON gateway.runs (tenant_id, agent_id, run_id);
CREATE INDEX runs_unfinished ON gateway.runs (tenant_id, state, run_id) WHERE state <> 'COMPLETED';
CREATE INDEX runs_create_time ON gateway.runs USING brin (create_time);

CREATE TABLE gateway.run_steps (
    tenant_id  uuid        NOT NULL,
    run_id     uuid        NOT NULL,
    sequence   integer     NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('begin', 'llm', 'tool', 'approval', 'append', 'summary', 'delegate')),
    state      text        NOT NULL CHECK (state IN ('STARTED', 'DONE', 'FAILED', 'UNKNOWN', 'SKIPPED')),
    key        uuid        NOT NULL,
    attempt    integer     NOT NULL DEFAULT 1,
    intent     json        NOT NULL,
    result     json,
    start_time timestamptz NOT NULL DEFAULT now(),
    end_time   timestamptz,
    PRIMARY KEY (tenant_id, run_id, sequence)
) WITH (fillfactor = 80);

-- Payloads are json, not jsonb: a replay reads the very text that was written.
CREATE TABLE gateway.run_events (
    tenant_id   uuid        NOT NULL,
    run_id      uuid        NOT NULL,
    sequence    bigint      NOT NULL,
    kind        text        NOT NULL,
    payload     json        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, run_id, sequence)
);
CREATE INDEX run_events_create_time ON gateway.run_events USING brin (create_time);

-- Each time that a model may have been asked, with the most that it can have cost. A LOST one was begun by a replica
-- that died, and stays counted at its worst case; it may never have reached the provider.
CREATE TABLE gateway.attempts (
    tenant_id        uuid        NOT NULL,
    run_id           uuid        NOT NULL,
    step_sequence    integer     NOT NULL,
    attempt          integer     NOT NULL,
    model            text        NOT NULL,
    state            text        NOT NULL CHECK (state IN ('STARTED', 'DONE', 'FAILED', 'LOST')),
    worst_case_nanos bigint,
    maximum_input    bigint      NOT NULL,
    maximum_output   bigint      NOT NULL,
    cost_nanos       bigint,
    reason           text,
    start_time       timestamptz NOT NULL DEFAULT now(),
    end_time         timestamptz,
    PRIMARY KEY (tenant_id, run_id, step_sequence, attempt)
) WITH (fillfactor = 80);

-- The bill: one row a completed step that costs something or has no known price (cost_nanos NULL).
CREATE TABLE gateway.ledger (
    tenant_id        uuid        NOT NULL,
    run_id           uuid        NOT NULL,
    step_sequence    integer     NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('llm', 'embedding', 'tool')),
    session_id       uuid        NOT NULL,
    agent_id         uuid        NOT NULL,
    agent_revision   bigint      NOT NULL,
    user_id          text        NOT NULL,
    name             text        NOT NULL,
    input_tokens     bigint      NOT NULL,
    output_tokens    bigint      NOT NULL,
    cached_tokens    bigint      NOT NULL,
    reasoning_tokens bigint      NOT NULL,
    cost_nanos       bigint,
    create_time      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, run_id, step_sequence)
);
CREATE INDEX ledger_create_time ON gateway.ledger (tenant_id, create_time);

-- Audit rows on their way to the activity service; deleted once it has acknowledged them.
CREATE TABLE gateway.outbox (
    tenant_id   uuid        NOT NULL,
    activity_id uuid        NOT NULL,
    principal   text        NOT NULL,
    payload     json        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    due_time    timestamptz NOT NULL DEFAULT now(),
    refusals    integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, activity_id)
);
CREATE INDEX outbox_due ON gateway.outbox (due_time);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['agent_snapshots', 'runs', 'run_steps', 'run_events', 'attempts', 'ledger', 'outbox'] LOOP
        EXECUTE format('ALTER TABLE gateway.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE gateway.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY owner ON gateway.%I TO minion_gateway_owner USING (true)', name);
        EXECUTE format(
            $policy$CREATE POLICY app ON gateway.%I TO minion_gateway_app
                USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
                WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)$policy$, name);
    END LOOP;
END $$;

GRANT SELECT, INSERT ON gateway.agent_snapshots, gateway.run_events, gateway.ledger TO minion_gateway_app;
GRANT SELECT, INSERT, UPDATE ON gateway.runs, gateway.run_steps, gateway.attempts TO minion_gateway_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON gateway.outbox TO minion_gateway_app;

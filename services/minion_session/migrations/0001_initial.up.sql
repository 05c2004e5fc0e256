-- Sessions, their messages, and their working memory.

CREATE FUNCTION session.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;

-- No index holds a column that an append changes, so that appends stay heap-only updates of one small row.
CREATE TABLE session.sessions (
    tenant_id     uuid        NOT NULL,
    session_id    uuid        NOT NULL,
    agent_id      uuid        NOT NULL,
    held_by_run   uuid,
    last_sequence bigint      NOT NULL DEFAULT 0,
    create_time   timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    expire_time   timestamptz,
    close_time    timestamptz,
    hold_until    timestamptz,
    user_id       text        NOT NULL,
    display_name  text        NOT NULL DEFAULT '',
    metadata      jsonb       NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, session_id)
) WITH (fillfactor = 70);
CREATE INDEX sessions_by_time ON session.sessions (tenant_id, create_time DESC, session_id DESC);
CREATE INDEX sessions_of_user ON session.sessions (tenant_id, user_id, create_time DESC, session_id DESC);
CREATE INDEX sessions_of_agent ON session.sessions (tenant_id, agent_id, create_time DESC, session_id DESC);
-- For the count of active sessions, over all tenants.
CREATE INDEX sessions_open ON session.sessions (expire_time) WHERE close_time IS NULL;
CREATE TRIGGER sessions_updated_at BEFORE UPDATE ON session.sessions FOR EACH ROW EXECUTE FUNCTION session.set_updated_at();

-- Messages never change. There is no foreign key: the one way in is a function that locks the session's row first, and
-- a foreign key would lock it again for each message.
CREATE TABLE session.messages (
    tenant_id     uuid        NOT NULL,
    session_id    uuid        NOT NULL,
    run_id        uuid,
    sequence      bigint      NOT NULL,
    create_time   timestamptz NOT NULL,
    step_sequence integer,
    token_count   integer     NOT NULL,
    byte_count    integer     NOT NULL, -- of the message on the wire, so that replies can be bounded
    step_place    smallint,
    role          text        NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'tool')),
    author        text        NOT NULL,
    parts         jsonb       NOT NULL,
    metadata      jsonb,
    PRIMARY KEY (tenant_id, session_id, sequence),
    CHECK (num_nulls(run_id, step_sequence, step_place) IN (0, 3))
);
-- A step of a run appends once for ever, however often it is tried.
CREATE UNIQUE INDEX messages_of_step ON session.messages (tenant_id, run_id, step_sequence, step_place)
    WHERE run_id IS NOT NULL;

CREATE TABLE session.workspace_entries (
    tenant_id   uuid        NOT NULL,
    session_id  uuid        NOT NULL,
    version     bigint      NOT NULL DEFAULT 1,
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    byte_count  integer     NOT NULL, -- of the entry on the wire
    key         text        NOT NULL,
    value       jsonb       NOT NULL,
    PRIMARY KEY (tenant_id, session_id, key),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session.sessions
) WITH (fillfactor = 80);
CREATE TRIGGER workspace_entries_updated_at BEFORE UPDATE ON session.workspace_entries FOR EACH ROW EXECUTE FUNCTION session.set_updated_at();

CREATE TABLE session.idempotency_keys (
    tenant_id   uuid        NOT NULL,
    request_id  uuid        NOT NULL,
    method      text        NOT NULL,
    digest      bytea       NOT NULL,
    subject     text,       -- whose content the result holds, so that erasure reaches it
    result      jsonb,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, request_id)
) WITH (fillfactor = 80);
CREATE INDEX idempotency_keys_create_time ON session.idempotency_keys USING brin (create_time);
CREATE INDEX idempotency_keys_subject ON session.idempotency_keys (tenant_id, subject) WHERE subject IS NOT NULL;
ALTER TABLE session.idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.idempotency_keys TO minion_session_owner USING (true);
CREATE POLICY app ON session.idempotency_keys TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON session.idempotency_keys TO minion_session_app;

ALTER TABLE session.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.sessions FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.sessions TO minion_session_owner USING (true);
CREATE POLICY app ON session.sessions TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON session.sessions TO minion_session_app;

ALTER TABLE session.messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.messages FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.messages TO minion_session_owner USING (true);
CREATE POLICY app ON session.messages TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON session.messages TO minion_session_app;

ALTER TABLE session.workspace_entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.workspace_entries FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.workspace_entries TO minion_session_owner USING (true);
CREATE POLICY app ON session.workspace_entries TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON session.workspace_entries TO minion_session_app;

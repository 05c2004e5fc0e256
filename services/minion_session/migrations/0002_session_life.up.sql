-- The whole life of a session: versions of what callers change, archives, expiry that is told, and a feed of changes.

-- `stage` is what the row itself says of a session's status. An open one whose time is up reads as expired at once, by
-- the clock; it moves to the stage of the expired when that is told. No append changes a column that an index holds.
ALTER TABLE session.sessions
    ADD COLUMN version bigint NOT NULL DEFAULT 1, -- of what UpdateSession and ExtendSession change
    ADD COLUMN archive_time timestamptz,
    ADD COLUMN expiry_told_time timestamptz,
    ADD COLUMN stage text NOT NULL GENERATED ALWAYS AS (
        CASE WHEN archive_time IS NOT NULL THEN 'archived'
             WHEN close_time IS NOT NULL THEN 'closed'
             WHEN expiry_told_time IS NOT NULL THEN 'expired'
             ELSE 'open' END) STORED;
CREATE INDEX sessions_of_stage ON session.sessions (tenant_id, stage, create_time DESC, session_id DESC);
CREATE INDEX sessions_of_agent_and_stage
    ON session.sessions (tenant_id, agent_id, stage, create_time DESC, session_id DESC);
-- For the count of active sessions and for those whose time is up, over all tenants.
DROP INDEX session.sessions_open;
CREATE INDEX sessions_open ON session.sessions (expire_time, tenant_id) WHERE stage = 'open';
-- For those that expired long ago.
CREATE INDEX sessions_expired ON session.sessions (expiry_told_time, tenant_id) WHERE stage = 'expired';

-- For what was said lately: messages come in the order of their times, so that a few pages hold all of it.
CREATE INDEX messages_create_time ON session.messages USING brin (create_time)
    WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE session.changes (
    tenant_id   uuid        NOT NULL,
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    resource_id uuid        NOT NULL,
    kind        text        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, xid, id)
);
CREATE INDEX changes_order ON session.changes (xid, id) INCLUDE (tenant_id);
CREATE INDEX changes_create_time ON session.changes USING brin (create_time);
ALTER TABLE session.changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.changes FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.changes TO minion_session_owner USING (true);
CREATE POLICY app ON session.changes TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON session.changes TO minion_session_app;

-- Up to which message a session's activity was told. Rows are of use for as long as a round may see those messages.
CREATE TABLE session.told_activity (
    tenant_id     uuid        NOT NULL,
    session_id    uuid        NOT NULL,
    last_sequence bigint      NOT NULL,
    tell_time     timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, session_id)
) WITH (fillfactor = 70);
ALTER TABLE session.told_activity ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.told_activity FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.told_activity TO minion_session_owner USING (true);
CREATE POLICY app ON session.told_activity TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON session.told_activity TO minion_session_app;

-- When activity was last told, and from when on messages may not have been: one row, reached through functions alone.
CREATE TABLE session.activity_rounds (
    is_one      boolean     PRIMARY KEY DEFAULT true CHECK (is_one),
    begin_time  timestamptz NOT NULL,
    told_before timestamptz NOT NULL
);
INSERT INTO session.activity_rounds (begin_time, told_before) VALUES (now(), now());

-- Their results have more columns now.
DROP FUNCTION IF EXISTS session.status_of(timestamptz, timestamptz, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS session.get_session(uuid, uuid);
DROP FUNCTION IF EXISTS session.open_workspace(uuid, uuid);
DROP FUNCTION IF EXISTS session.begin_turn(
    uuid, uuid, uuid, integer, text, jsonb, integer, integer, jsonb, interval, bigint, integer, bigint);

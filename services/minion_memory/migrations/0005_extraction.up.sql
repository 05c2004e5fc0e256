-- Sessions that are followed, and the jobs that draw memories from them. Ids and counters, no content.

-- A row a session: what was handed to jobs already, and when it is to be looked at again. Its row is also the lock that
-- whoever makes jobs of the session takes.
CREATE TABLE memory.watched_sessions (
    tenant_id   uuid        NOT NULL,
    session_id  uuid        NOT NULL,
    -- Of whom it is; unset until it was looked at.
    user_id     text,
    -- Extractor → the last message that was handed to a job.
    drawn       jsonb       NOT NULL DEFAULT '{}',
    -- Grows with each change told, so that one that comes during a look isn't lost.
    version     bigint      NOT NULL DEFAULT 1,
    due_time    timestamptz,
    create_time timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, session_id)
);
CREATE INDEX watched_sessions_due ON memory.watched_sessions (due_time) WHERE due_time IS NOT NULL;
CREATE INDEX watched_sessions_of_user ON memory.watched_sessions (tenant_id, user_id);
ALTER TABLE memory.watched_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.watched_sessions FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.watched_sessions TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.watched_sessions TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.watched_sessions TO minion_memory_app;
CREATE TRIGGER watched_sessions_updated_at BEFORE UPDATE ON memory.watched_sessions
    FOR EACH ROW EXECUTE FUNCTION memory.set_updated_at();

CREATE TABLE memory.extraction_jobs (
    tenant_id       uuid        NOT NULL,
    job_id          uuid        NOT NULL,
    session_id      uuid        NOT NULL,
    agent_id        uuid        NOT NULL,
    user_id         text        NOT NULL,
    extractor       text        NOT NULL,
    trigger         text        NOT NULL CHECK (trigger IN ('requested', 'ended', 'idle', 'messages')),
    principal       text        NOT NULL,
    state           text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'failed')),
    first_sequence  bigint      NOT NULL,
    last_sequence   bigint      NOT NULL,
    attempt_count   integer     NOT NULL DEFAULT 0,
    -- A reason and its cause by name, never what a message or a model said.
    error           text        NOT NULL DEFAULT '',
    created_count   integer     NOT NULL DEFAULT 0,
    updated_count   integer     NOT NULL DEFAULT 0,
    deleted_count   integer     NOT NULL DEFAULT 0,
    unchanged_count integer     NOT NULL DEFAULT 0,
    refused_count   integer     NOT NULL DEFAULT 0,
    -- The memories that it touched: [{"memory_id", "outcome", "reason"}].
    touched         jsonb       NOT NULL DEFAULT '[]',
    -- The fence: whoever has the job names the epoch of its lease.
    epoch           bigint      NOT NULL DEFAULT 0,
    owner           uuid,
    lease_until     timestamptz,
    due_time        timestamptz NOT NULL DEFAULT now(),
    create_time     timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, job_id)
);
-- Nothing is drawn twice.
CREATE UNIQUE INDEX extraction_jobs_by_stretch
    ON memory.extraction_jobs (tenant_id, session_id, extractor, first_sequence, last_sequence);
CREATE INDEX extraction_jobs_newest ON memory.extraction_jobs (tenant_id, create_time, job_id);
CREATE INDEX extraction_jobs_newest_of_session
    ON memory.extraction_jobs (tenant_id, session_id, create_time, job_id);
CREATE INDEX extraction_jobs_of_user ON memory.extraction_jobs (tenant_id, user_id);
CREATE INDEX extraction_jobs_due ON memory.extraction_jobs (due_time) WHERE state = 'pending';
CREATE INDEX extraction_jobs_running ON memory.extraction_jobs (lease_until) WHERE state = 'running';
CREATE INDEX extraction_jobs_failed ON memory.extraction_jobs (tenant_id) WHERE state = 'failed';
CREATE INDEX extraction_jobs_ended ON memory.extraction_jobs (updated_at) WHERE state IN ('done', 'failed');
ALTER TABLE memory.extraction_jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.extraction_jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.extraction_jobs TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.extraction_jobs TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.extraction_jobs TO minion_memory_app;
CREATE TRIGGER extraction_jobs_updated_at BEFORE UPDATE ON memory.extraction_jobs
    FOR EACH ROW EXECUTE FUNCTION memory.set_updated_at();

-- How far the session service's feed was read, for the whole deployment, and which replica reads it: no tenant's content.
CREATE TABLE memory.session_feed (
    feed        text        PRIMARY KEY CHECK (feed = 'sessions'),
    cursor      text        NOT NULL DEFAULT '',
    owner       uuid,
    lease_until timestamptz,
    update_time timestamptz NOT NULL DEFAULT now()
);
INSERT INTO memory.session_feed (feed) VALUES ('sessions');
GRANT SELECT, UPDATE ON memory.session_feed TO minion_memory_app;

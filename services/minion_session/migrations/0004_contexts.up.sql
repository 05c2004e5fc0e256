-- Summaries, forks, and blobs.

-- A fork has its parent's messages up to a place without copies of them: `shares_with` is the session that holds the
-- last of them as its own, `shared_sequence` their end. What a caller is told (`parent_session_id`, `fork_sequence`)
-- stays as it was when messages change hands.
ALTER TABLE session.sessions
    ADD COLUMN parent_session_id uuid,
    ADD COLUMN shares_with       uuid,
    ADD COLUMN fork_sequence     bigint NOT NULL DEFAULT 0,
    ADD COLUMN shared_sequence   bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT sessions_sharing CHECK ((shares_with IS NULL) = (shared_sequence = 0)) NOT VALID;
ALTER TABLE session.sessions VALIDATE CONSTRAINT sessions_sharing;

-- A message that was copied into a fork keeps its run, not its step: a step appends once for ever, to one session.
ALTER TABLE session.messages DROP CONSTRAINT messages_check;
ALTER TABLE session.messages ADD CONSTRAINT messages_step
    CHECK (num_nulls(step_sequence, step_place) IN (0, 2) AND (step_sequence IS NULL OR run_id IS NOT NULL)) NOT VALID;
ALTER TABLE session.messages VALIDATE CONSTRAINT messages_step;

-- Summaries never change. `place` counts them in the order in which they were saved; `saved_after` is the session's last
-- sequence then, by which a turn that is begun again finds the summary of then.
CREATE TABLE session.summaries (
    tenant_id      uuid        NOT NULL,
    session_id     uuid        NOT NULL,
    summary_id     uuid        NOT NULL,
    run_id         uuid,
    first_sequence bigint      NOT NULL,
    last_sequence  bigint      NOT NULL,
    saved_after    bigint      NOT NULL,
    create_time    timestamptz NOT NULL,
    place          integer     NOT NULL,
    step_sequence  integer,
    token_count    integer     NOT NULL,
    model          text        NOT NULL,
    content        text        NOT NULL,
    PRIMARY KEY (tenant_id, session_id, place),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session.sessions ON DELETE CASCADE,
    CHECK (first_sequence BETWEEN 1 AND last_sequence),
    CHECK (step_sequence IS NULL OR run_id IS NOT NULL)
);
-- A step of a run makes a summary once for ever. Those that a fork took over have no step.
CREATE UNIQUE INDEX summaries_of_step ON session.summaries (tenant_id, run_id, step_sequence)
    WHERE step_sequence IS NOT NULL;
ALTER TABLE session.summaries ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.summaries FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.summaries TO minion_session_owner USING (true);
CREATE POLICY app ON session.summaries TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON session.summaries TO minion_session_app;

-- The bytes of a blob, kept once however many sessions have it. `session_id` is set while they are on their way in.
CREATE TABLE session.blob_contents (
    tenant_id  uuid        NOT NULL,
    blob_id    uuid        NOT NULL,
    session_id uuid,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, blob_id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session.sessions ON DELETE CASCADE
);
CREATE INDEX blob_contents_on_their_way ON session.blob_contents (updated_at) WHERE session_id IS NOT NULL;
CREATE INDEX blob_contents_of_session ON session.blob_contents (tenant_id, session_id) WHERE session_id IS NOT NULL;
CREATE TRIGGER blob_contents_updated_at BEFORE UPDATE ON session.blob_contents FOR EACH ROW EXECUTE FUNCTION session.set_updated_at();
ALTER TABLE session.blob_contents ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.blob_contents FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.blob_contents TO minion_session_owner USING (true);
CREATE POLICY app ON session.blob_contents TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON session.blob_contents TO minion_session_app;

-- Pieces of one size, but for the last, so that a range names the pieces that it lies in. EXTERNAL: a part of a piece is
-- read without the rest.
CREATE TABLE session.blob_chunks (
    tenant_id uuid    NOT NULL,
    blob_id   uuid    NOT NULL,
    place     integer NOT NULL,
    bytes     bytea   NOT NULL,
    PRIMARY KEY (tenant_id, blob_id, place),
    FOREIGN KEY (tenant_id, blob_id) REFERENCES session.blob_contents ON DELETE CASCADE
);
ALTER TABLE session.blob_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;
ALTER TABLE session.blob_chunks ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.blob_chunks FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.blob_chunks TO minion_session_owner USING (true);
CREATE POLICY app ON session.blob_chunks TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON session.blob_chunks TO minion_session_app;

-- A row for each session that has a blob: the one that it was put into, and the forks that began after it. `stored_after`
-- is the session's last sequence then: messages up to it can't name the blob.
CREATE TABLE session.blobs (
    tenant_id    uuid        NOT NULL,
    session_id   uuid        NOT NULL,
    blob_id      uuid        NOT NULL,
    size_bytes   bigint      NOT NULL,
    stored_after bigint      NOT NULL,
    create_time  timestamptz NOT NULL,
    sha256       bytea       NOT NULL,
    media_type   text        NOT NULL,
    name         text        NOT NULL,
    PRIMARY KEY (tenant_id, session_id, blob_id),
    UNIQUE (tenant_id, session_id, sha256),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session.sessions ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, blob_id) REFERENCES session.blob_contents
);
CREATE INDEX blobs_by_id ON session.blobs (tenant_id, blob_id);
ALTER TABLE session.blobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE session.blobs FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON session.blobs TO minion_session_owner USING (true);
CREATE POLICY app ON session.blobs TO minion_session_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON session.blobs TO minion_session_app;

-- The bytes go with the last session that has them. The lock makes the second of two sessions that go at once see that
-- the first has gone.
CREATE FUNCTION session.drop_contents_left() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM session.blob_contents c
      WHERE (c.tenant_id, c.blob_id) IN (SELECT g.tenant_id, g.blob_id FROM gone g)
      ORDER BY c.tenant_id, c.blob_id
        FOR UPDATE;
    DELETE FROM session.blob_contents c USING gone g
     WHERE c.tenant_id = g.tenant_id AND c.blob_id = g.blob_id
       AND NOT EXISTS (SELECT FROM session.blobs b WHERE b.tenant_id = c.tenant_id AND b.blob_id = c.blob_id);
    RETURN NULL;
END $$;
CREATE TRIGGER blobs_contents_left AFTER DELETE ON session.blobs REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION session.drop_contents_left();

-- Both return more than before.
DROP FUNCTION IF EXISTS session.get_session(uuid, uuid);
DROP FUNCTION IF EXISTS session.begin_turn(
    uuid, uuid, uuid, integer, text, jsonb, integer, integer, jsonb, interval, bigint, integer, bigint);

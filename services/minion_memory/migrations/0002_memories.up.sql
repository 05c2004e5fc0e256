-- When memories are so, how often they are of use, the states that they were in, and those that wait for a vector.

ALTER TABLE memory.memories
    ADD COLUMN valid_from    timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN valid_until   timestamptz,
    ADD COLUMN occur_time    timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN superseded_by uuid,
    -- The number of the state that it is in, and what made that state.
    ADD COLUMN revision      bigint      NOT NULL DEFAULT 1,
    ADD COLUMN cause         text        NOT NULL DEFAULT 'stored'
        CHECK (cause IN ('stored', 'updated', 'extracted', 'consolidated', 'rolled_back')),
    ADD COLUMN reason        text        NOT NULL DEFAULT '',
    ADD COLUMN principal     text        NOT NULL DEFAULT '',
    ADD CONSTRAINT memories_validity CHECK (valid_until >= valid_from);
-- What is there already was so since it was stored.
ALTER TABLE memory.memories DISABLE TRIGGER USER;
UPDATE memory.memories SET valid_from = create_time, occur_time = create_time;
ALTER TABLE memory.memories ENABLE TRIGGER USER;
GRANT UPDATE (valid_from, valid_until, occur_time, superseded_by, cause, reason, principal)
   ON memory.memories TO minion_memory_app;

-- The states that memories were in before the one that they are in: a memory that never changed has none here. What it
-- says of who made a state, and when, is of that state.
CREATE TABLE memory.memory_revisions (
    tenant_id        uuid             NOT NULL,
    memory_id        uuid             NOT NULL,
    revision         bigint           NOT NULL,
    type             text             NOT NULL,
    content          text             NOT NULL,
    speaker          text             NOT NULL,
    importance       double precision NOT NULL,
    confidence       double precision NOT NULL,
    trust            text             NOT NULL,
    labels           jsonb            NOT NULL,
    metadata         jsonb            NOT NULL,
    source_session   uuid,
    source_sequences bigint[]         NOT NULL,
    source_quote     text             NOT NULL,
    model_id         smallint,
    valid_from       timestamptz      NOT NULL,
    valid_until      timestamptz,
    occur_time       timestamptz      NOT NULL,
    superseded_by    uuid,
    cause            text             NOT NULL,
    reason           text             NOT NULL,
    principal        text             NOT NULL,
    create_time      timestamptz      NOT NULL,
    byte_count       integer          NOT NULL,
    PRIMARY KEY (tenant_id, memory_id, revision),
    FOREIGN KEY (tenant_id, memory_id) REFERENCES memory.memories ON DELETE CASCADE
);
ALTER TABLE memory.memory_revisions ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.memory_revisions FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.memory_revisions TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.memory_revisions TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON memory.memory_revisions TO minion_memory_app;

-- Makes the next revision of whatever says something else now, whoever writes; what it was goes into the history. A new
-- vector is no other state. Times never run backwards, even if the clock does.
CREATE FUNCTION memory.keep_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.type, NEW.content, NEW.speaker, NEW.importance, NEW.confidence, NEW.trust, NEW.labels, NEW.metadata,
        NEW.source_session, NEW.source_sequences, NEW.source_quote, NEW.valid_from, NEW.valid_until, NEW.occur_time,
        NEW.superseded_by)
       IS NOT DISTINCT FROM
       (OLD.type, OLD.content, OLD.speaker, OLD.importance, OLD.confidence, OLD.trust, OLD.labels, OLD.metadata,
        OLD.source_session, OLD.source_sequences, OLD.source_quote, OLD.valid_from, OLD.valid_until, OLD.occur_time,
        OLD.superseded_by)
    THEN
        NEW.cause := OLD.cause;
        NEW.reason := OLD.reason;
        NEW.principal := OLD.principal;
        NEW.updated_at := OLD.updated_at;
        RETURN NEW;
    END IF;
    INSERT INTO memory.memory_revisions (
        tenant_id, memory_id, revision, type, content, speaker, importance, confidence, trust, labels, metadata,
        source_session, source_sequences, source_quote, model_id, valid_from, valid_until, occur_time, superseded_by,
        cause, reason, principal, create_time, byte_count)
    VALUES (
        OLD.tenant_id, OLD.memory_id, OLD.revision, OLD.type, OLD.content, OLD.speaker, OLD.importance, OLD.confidence,
        OLD.trust, OLD.labels, OLD.metadata, OLD.source_session, OLD.source_sequences, OLD.source_quote, OLD.model_id,
        OLD.valid_from, OLD.valid_until, OLD.occur_time, OLD.superseded_by,
        OLD.cause, OLD.reason, OLD.principal, OLD.updated_at, OLD.byte_count);
    NEW.revision := OLD.revision + 1;
    NEW.updated_at := greatest(now(), OLD.updated_at + interval '1 microsecond');
    RETURN NEW;
END $$;
DROP TRIGGER memories_updated_at ON memory.memories;
CREATE TRIGGER keep_revision BEFORE UPDATE ON memory.memories
    FOR EACH ROW EXECUTE FUNCTION memory.keep_revision();

-- How often searches brought a memory, apart from it: counting touches none of its indexes, triggers and revisions.
CREATE TABLE memory.memory_access (
    tenant_id    uuid        NOT NULL,
    memory_id    uuid        NOT NULL,
    access_count bigint      NOT NULL DEFAULT 0,
    access_time  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, memory_id),
    FOREIGN KEY (tenant_id, memory_id) REFERENCES memory.memories ON DELETE CASCADE
) WITH (fillfactor = 70);
ALTER TABLE memory.memory_access ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.memory_access FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.memory_access TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.memory_access TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.memory_access TO minion_memory_app;

-- The memories that have no vector, and when it is next tried to make them one.
CREATE TABLE memory.unembedded_memories (
    tenant_id     uuid        NOT NULL,
    memory_id     uuid        NOT NULL,
    due_time      timestamptz NOT NULL DEFAULT now(),
    attempt_count integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, memory_id),
    FOREIGN KEY (tenant_id, memory_id) REFERENCES memory.memories ON DELETE CASCADE
);
CREATE INDEX unembedded_memories_due ON memory.unembedded_memories (due_time);
ALTER TABLE memory.unembedded_memories ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.unembedded_memories FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.unembedded_memories TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.unembedded_memories TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.unembedded_memories TO minion_memory_app;
INSERT INTO memory.unembedded_memories (tenant_id, memory_id)
SELECT tenant_id, memory_id FROM memory.memories WHERE model_id IS NULL;

-- Keeps the list of those without a vector, whoever writes: `model_id` says whether there is one. A new content is tried
-- at once, whatever became of the old one.
CREATE FUNCTION memory.keep_unembedded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.model_id IS NULL THEN
        INSERT INTO memory.unembedded_memories (tenant_id, memory_id) VALUES (NEW.tenant_id, NEW.memory_id)
        ON CONFLICT (tenant_id, memory_id) DO UPDATE SET due_time = now(), attempt_count = 0;
    ELSE
        DELETE FROM memory.unembedded_memories WHERE tenant_id = NEW.tenant_id AND memory_id = NEW.memory_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_unembedded_inserted AFTER INSERT ON memory.memories
    FOR EACH ROW WHEN (NEW.model_id IS NULL) EXECUTE FUNCTION memory.keep_unembedded();
CREATE TRIGGER keep_unembedded_updated AFTER UPDATE ON memory.memories
    FOR EACH ROW WHEN (OLD.model_id IS DISTINCT FROM NEW.model_id AND (OLD.model_id IS NULL OR NEW.model_id IS NULL)
                       OR NEW.model_id IS NULL AND OLD.content <> NEW.content)
    EXECUTE FUNCTION memory.keep_unembedded();

-- Times of a memory as stored; `create_time` and `superseded_by` are an import's alone.
ALTER TYPE memory.store_item
    ADD ATTRIBUTE valid_from timestamptz,
    ADD ATTRIBUTE valid_until timestamptz,
    ADD ATTRIBUTE occur_time timestamptz,
    ADD ATTRIBUTE create_time timestamptz,
    ADD ATTRIBUTE superseded_by uuid,
    -- Why this one, where it is not the reason of the whole batch.
    ADD ATTRIBUTE reason text;

CREATE OR REPLACE VIEW memory.memory_details WITH (security_invoker = true) AS
SELECT m.tenant_id, m.memory_id, m.agent_id, m.user_id, m.key, m.type, m.content, m.speaker, m.importance,
       m.confidence, m.trust, m.labels, m.metadata, m.source_session, m.source_sequences, m.source_quote,
       coalesce(e.name, '') AS embedding_model, m.create_time, m.updated_at AS update_time,
       m.byte_count, m.valid_from, m.valid_until, m.occur_time, m.superseded_by,
       coalesce(a.access_count, 0) AS access_count, a.access_time, m.revision
  FROM memory.memories m
  LEFT JOIN memory.embedding_models e USING (model_id)
  LEFT JOIN memory.memory_access a ON a.tenant_id = m.tenant_id AND a.memory_id = m.memory_id;

-- A state of a memory as the service reads it, the one that it is in included. When it was made stands in `update_time`.
CREATE VIEW memory.revision_details WITH (security_invoker = true) AS
SELECT d.tenant_id, d.memory_id, d.agent_id, d.user_id, d.key, d.type, d.content, d.speaker, d.importance,
       d.confidence, d.trust, d.labels, d.metadata, d.source_session, d.source_sequences, d.source_quote,
       d.embedding_model, d.create_time, d.update_time, d.byte_count, d.valid_from, d.valid_until, d.occur_time,
       d.superseded_by, 0::bigint AS access_count, NULL::timestamptz AS access_time, d.revision,
       m.cause, m.reason, m.principal
  FROM memory.memory_details d JOIN memory.memories m USING (tenant_id, memory_id)
UNION ALL
SELECT r.tenant_id, r.memory_id, m.agent_id, m.user_id, m.key, r.type, r.content, r.speaker, r.importance,
       r.confidence, r.trust, r.labels, r.metadata, r.source_session, r.source_sequences, r.source_quote,
       coalesce(e.name, ''), m.create_time, r.create_time, r.byte_count, r.valid_from, r.valid_until, r.occur_time,
       r.superseded_by, 0, NULL, r.revision,
       r.cause, r.reason, r.principal
  FROM memory.memory_revisions r
  JOIN memory.memories m USING (tenant_id, memory_id)
  LEFT JOIN memory.embedding_models e ON e.model_id = r.model_id;
GRANT SELECT ON memory.revision_details TO minion_memory_app;

-- The labels of memories, a row each: a list by label walks it, newest first.
CREATE TABLE memory.memory_labels (
    tenant_id   uuid        NOT NULL,
    label       text        NOT NULL,
    value       text        NOT NULL,
    create_time timestamptz NOT NULL,
    memory_id   uuid        NOT NULL,
    PRIMARY KEY (tenant_id, label, value, create_time, memory_id),
    FOREIGN KEY (tenant_id, memory_id) REFERENCES memory.memories ON DELETE CASCADE
);
-- For what follows a memory that goes.
CREATE INDEX memory_labels_of_memory ON memory.memory_labels (tenant_id, memory_id);
ALTER TABLE memory.memory_labels ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.memory_labels FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.memory_labels TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.memory_labels TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON memory.memory_labels TO minion_memory_app;
INSERT INTO memory.memory_labels (tenant_id, label, value, create_time, memory_id)
SELECT tenant_id, label, value, create_time, memory_id FROM memory.memories, jsonb_each_text(labels) AS each (label, value);

-- Keeps the labels' rows, whoever writes.
CREATE FUNCTION memory.keep_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM memory.memory_labels WHERE tenant_id = NEW.tenant_id AND memory_id = NEW.memory_id;
    END IF;
    INSERT INTO memory.memory_labels (tenant_id, label, value, create_time, memory_id)
    SELECT NEW.tenant_id, label, value, NEW.create_time, NEW.memory_id
      FROM jsonb_each_text(NEW.labels) AS each (label, value);
    RETURN NULL;
END $$;
CREATE TRIGGER keep_labels_inserted AFTER INSERT ON memory.memories
    FOR EACH ROW WHEN (NEW.labels <> '{}') EXECUTE FUNCTION memory.keep_labels();
CREATE TRIGGER keep_labels_updated AFTER UPDATE ON memory.memories
    FOR EACH ROW WHEN (NEW.labels <> OLD.labels) EXECUTE FUNCTION memory.keep_labels();

-- What people said, and their names, stay out of the planner's statistics, which outlive an erasure. Nothing is
-- estimated by them.
ALTER TABLE memory.memories
    ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN content SET STATISTICS 0, ALTER COLUMN speaker SET STATISTICS 0,
    ALTER COLUMN labels SET STATISTICS 0, ALTER COLUMN metadata SET STATISTICS 0,
    ALTER COLUMN source_quote SET STATISTICS 0, ALTER COLUMN reason SET STATISTICS 0;
ALTER TABLE memory.memory_labels ALTER COLUMN label SET STATISTICS 0, ALTER COLUMN value SET STATISTICS 0;
ALTER TABLE memory.memory_revisions
    ALTER COLUMN content SET STATISTICS 0, ALTER COLUMN speaker SET STATISTICS 0, ALTER COLUMN labels SET STATISTICS 0,
    ALTER COLUMN metadata SET STATISTICS 0, ALTER COLUMN source_quote SET STATISTICS 0,
    ALTER COLUMN reason SET STATISTICS 0;

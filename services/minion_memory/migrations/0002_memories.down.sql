-- Takes back times, revisions, access counts, labels' rows and the list of what has no vector; the memories stay.
ALTER TABLE memory.memories
    ALTER COLUMN key SET STATISTICS -1, ALTER COLUMN content SET STATISTICS -1, ALTER COLUMN speaker SET STATISTICS -1,
    ALTER COLUMN labels SET STATISTICS -1, ALTER COLUMN metadata SET STATISTICS -1,
    ALTER COLUMN source_quote SET STATISTICS -1;
DROP TRIGGER keep_labels_inserted ON memory.memories;
DROP TRIGGER keep_labels_updated ON memory.memories;
DROP FUNCTION memory.keep_labels();
DROP TABLE memory.memory_labels;
DROP VIEW memory.revision_details;
DROP VIEW memory.memory_details;
ALTER TYPE memory.store_item
    DROP ATTRIBUTE valid_from, DROP ATTRIBUTE valid_until, DROP ATTRIBUTE occur_time, DROP ATTRIBUTE create_time,
    DROP ATTRIBUTE superseded_by, DROP ATTRIBUTE reason;
DROP TRIGGER keep_unembedded_inserted ON memory.memories;
DROP TRIGGER keep_unembedded_updated ON memory.memories;
DROP FUNCTION memory.keep_unembedded();
DROP TABLE memory.unembedded_memories;
DROP TABLE memory.memory_access;
DROP TRIGGER keep_revision ON memory.memories;
DROP FUNCTION memory.keep_revision();
CREATE OR REPLACE FUNCTION memory.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER memories_updated_at BEFORE UPDATE ON memory.memories
    FOR EACH ROW EXECUTE FUNCTION memory.set_updated_at();
DROP TABLE memory.memory_revisions;
ALTER TABLE memory.memories
    DROP COLUMN valid_from, DROP COLUMN valid_until, DROP COLUMN occur_time, DROP COLUMN superseded_by,
    DROP COLUMN revision, DROP COLUMN cause, DROP COLUMN reason, DROP COLUMN principal;
CREATE VIEW memory.memory_details WITH (security_invoker = true) AS
SELECT m.tenant_id, m.memory_id, m.agent_id, m.user_id, m.key, m.type, m.content, m.speaker, m.importance,
       m.confidence, m.trust, m.labels, m.metadata, m.source_session, m.source_sequences, m.source_quote,
       coalesce(e.name, '') AS embedding_model, m.create_time, m.updated_at AS update_time,
       m.byte_count
  FROM memory.memories m LEFT JOIN memory.embedding_models e USING (model_id);
GRANT SELECT ON memory.memory_details TO minion_memory_app;

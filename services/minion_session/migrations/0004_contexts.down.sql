-- Forks take over what they share, so that no message is lost with the columns that say where it is.
DO $$
DECLARE
    source record;
BEGIN
    FOR source IN SELECT DISTINCT s.tenant_id, s.shares_with FROM session.sessions s WHERE s.shares_with IS NOT NULL LOOP
        INSERT INTO session.messages (tenant_id, session_id, run_id, sequence, create_time, step_sequence, token_count,
                                      byte_count, step_place, role, author, parts, metadata)
        WITH RECURSIVE chain AS (
            SELECT s.session_id AS fork, s.shares_with AS holder, s.shared_sequence AS upto
              FROM session.sessions s
             WHERE s.tenant_id = source.tenant_id AND s.shares_with = source.shares_with
            UNION ALL
            SELECT c.fork, s.shares_with, s.shared_sequence
              FROM chain c JOIN session.sessions s ON s.tenant_id = source.tenant_id AND s.session_id = c.holder
             WHERE s.shares_with IS NOT NULL
        )
        SELECT m.tenant_id, c.fork, NULL, m.sequence, m.create_time, NULL, m.token_count, m.byte_count, NULL, m.role,
               m.author, m.parts, m.metadata
          FROM chain c
          JOIN session.messages m ON m.tenant_id = source.tenant_id AND m.session_id = c.holder AND m.sequence <= c.upto
        ON CONFLICT (tenant_id, session_id, sequence) DO NOTHING;
    END LOOP;
END $$;
DROP TABLE session.blobs;
DROP TABLE session.blob_chunks;
DROP TABLE session.blob_contents;
DROP TABLE session.summaries;
DROP FUNCTION IF EXISTS session.drop_contents_left();
UPDATE session.messages SET run_id = NULL WHERE run_id IS NOT NULL AND step_sequence IS NULL;
ALTER TABLE session.messages DROP CONSTRAINT messages_step;
ALTER TABLE session.messages ADD CONSTRAINT messages_check CHECK (num_nulls(run_id, step_sequence, step_place) IN (0, 3));
ALTER TABLE session.sessions
    DROP COLUMN parent_session_id,
    DROP COLUMN shares_with,
    DROP COLUMN fork_sequence,
    DROP COLUMN shared_sequence;

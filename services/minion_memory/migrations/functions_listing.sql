-- How memories are read, but for searches.

-- A memory by what it is filed under, or no row.
CREATE OR REPLACE FUNCTION memory.get_memory_by_key(tenant uuid, agent uuid, subject text, filed_under text)
RETURNS SETOF memory.memory_details LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT * FROM memory.memory_details d
                  WHERE d.tenant_id = tenant AND d.agent_id = agent AND d.user_id = subject AND d.key = filed_under;
END $$;

-- The query of a page of memories, newest first, for the filters that are set; a text, so that each combination is
-- planned for its own index. $1 tenant, $2 agent, $3 user, $4 type, $5 and $6 the time and id after which it goes on,
-- $7 the most rows, $8 the most bytes (one row comes in any case), $9 session, $10 labels, $11 and $12 the label and
-- value that are walked (`by_label`), as of $13 unless `ended` ones are wanted too.
CREATE OR REPLACE FUNCTION memory.list_query(
    by_agent boolean, by_user boolean, by_type boolean, by_session boolean, by_labels boolean, by_label boolean,
    ended boolean
) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'WITH page AS (
                SELECT details, details.create_time, details.memory_id, details.byte_count'
        || CASE WHEN by_label THEN '
                  FROM memory.memory_labels walked
                  JOIN memory.memory_details details USING (tenant_id, memory_id)
                 WHERE walked.tenant_id = $1 AND walked.label = $11 AND walked.value = $12
                   AND (walked.create_time, walked.memory_id) < ($5, $6)'
           ELSE '
                  FROM memory.memory_details details
                 WHERE details.tenant_id = $1 AND (details.create_time, details.memory_id) < ($5, $6)' END
        || CASE WHEN by_agent THEN ' AND details.agent_id = $2' ELSE '' END
        || CASE WHEN by_user THEN ' AND details.user_id = $3' ELSE '' END
        || CASE WHEN by_type THEN ' AND details.type = $4' ELSE '' END
        || CASE WHEN by_session THEN ' AND details.source_session = $9' ELSE '' END
        || CASE WHEN by_labels THEN ' AND details.labels @> $10' ELSE '' END
        || CASE WHEN ended THEN '' ELSE ' AND (details.valid_until IS NULL OR details.valid_until > $13)' END
        || CASE WHEN by_label THEN '
                 ORDER BY walked.create_time DESC, walked.memory_id DESC LIMIT $7'
           ELSE '
                 ORDER BY details.create_time DESC, details.memory_id DESC LIMIT $7' END || '
            ), filled AS (
                SELECT *, count(*) OVER () AS row_count,
                       sum(byte_count) OVER (ORDER BY create_time DESC, memory_id DESC) AS filling
                  FROM page
            )
            SELECT row_count, details
              FROM filled WHERE filling <= greatest($8, byte_count)
             ORDER BY create_time DESC, memory_id DESC';
$$;

-- One page of memories; NULL filters match all. `row_count` is what it would hold but for the limit of bytes.
--
-- Without labels the index of the other filters is walked. With them the rarest label is, unless the other filters match
-- fewer; each is counted to a thousand, which costs less than a page.
CREATE OR REPLACE FUNCTION memory.list_memories(
    tenant uuid, agent uuid, subject text, kind text, session uuid, labels jsonb, ended boolean,
    after_time timestamptz, after_id uuid, most_rows integer, most_bytes bigint
) RETURNS TABLE (row_count bigint, memory memory.memory_details) LANGUAGE plpgsql STABLE AS $$
DECLARE
    walked_label text;
    walked_value text;
    walked_count bigint;
    others bigint;
    by_label boolean := false;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    IF labels IS NOT NULL THEN
        SELECT given.label, given.value, counted.met INTO walked_label, walked_value, walked_count
          FROM jsonb_each_text(labels) AS given (label, value)
         CROSS JOIN LATERAL (
                  SELECT count(*) AS met
                    FROM (SELECT FROM memory.memory_labels l
                           WHERE l.tenant_id = tenant AND l.label = given.label AND l.value = given.value
                           LIMIT 1000) sample) counted
         ORDER BY counted.met, given.label LIMIT 1;
        IF agent IS NOT NULL OR subject IS NOT NULL OR session IS NOT NULL THEN
            EXECUTE 'SELECT count(*) FROM (SELECT FROM memory.memories WHERE tenant_id = $1'
                || CASE WHEN agent IS NOT NULL THEN ' AND agent_id = $2' ELSE '' END
                || CASE WHEN subject IS NOT NULL THEN ' AND user_id = $3' ELSE '' END
                || CASE WHEN session IS NOT NULL THEN ' AND source_session = $4' ELSE '' END
                || ' LIMIT 1000) sample'
               INTO others USING tenant, agent, subject, session;
        END IF;
        by_label := others IS NULL OR walked_count < others;
    END IF;
    RETURN QUERY EXECUTE memory.list_query(
            agent IS NOT NULL, subject IS NOT NULL, kind IS NOT NULL, session IS NOT NULL, labels IS NOT NULL, by_label,
            ended)
        USING tenant, agent, subject, kind, coalesce(after_time, 'infinity'),
              coalesce(after_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'), most_rows, most_bytes, session, labels,
              walked_label, walked_value, now();
END $$;

-- The same with the filters of the release before, for as long as its replicas are about.
DROP FUNCTION IF EXISTS memory.list_query(boolean, boolean, boolean);
CREATE OR REPLACE FUNCTION memory.list_memories(
    tenant uuid, agent uuid, subject text, kind text, after_time timestamptz, after_id uuid,
    most_rows integer, most_bytes bigint
) RETURNS TABLE (row_count bigint, memory memory.memory_details) LANGUAGE sql STABLE AS $$
    SELECT * FROM memory.list_memories(
        tenant, agent, subject, kind, NULL, NULL, true, after_time, after_id, most_rows, most_bytes);
$$;

-- One page of memories on their way out, those that are no longer so too, with their vectors where they are wanted.
CREATE OR REPLACE FUNCTION memory.export_memories(
    tenant uuid, agent uuid, subject text, with_vectors boolean,
    after_time timestamptz, after_id uuid, most_rows integer, most_bytes bigint
) RETURNS TABLE (row_count bigint, memory memory.memory_details, embedding vector) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
        SELECT page.row_count, page.memory, placed.embedding
          FROM memory.list_memories(
                   tenant, agent, subject, NULL, NULL, NULL, true, after_time, after_id, most_rows, most_bytes) page
          LEFT JOIN LATERAL (
                   SELECT v.embedding FROM memory.memory_vectors v
                    WHERE with_vectors AND v.tenant_id = tenant AND v.memory_id = (page.memory).memory_id
                      AND v.model_id = (SELECT m.model_id FROM memory.memories m
                                         WHERE m.tenant_id = tenant AND m.memory_id = (page.memory).memory_id)
                    LIMIT 1) placed ON true
         ORDER BY (page.memory).create_time DESC, (page.memory).memory_id DESC;
END $$;

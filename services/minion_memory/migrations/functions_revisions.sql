-- The states that memories were in.

-- One state of a memory, or no row.
CREATE OR REPLACE FUNCTION memory.get_revision(tenant uuid, memory uuid, wanted bigint)
RETURNS SETOF memory.revision_details LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT * FROM memory.revision_details d
                  WHERE d.tenant_id = tenant AND d.memory_id = memory AND d.revision = wanted;
END $$;

-- One page of the states of a memory, newest first, the one that it is in included; no row when there is no such memory.
-- `row_count` is what the page would hold but for the limit of bytes.
CREATE OR REPLACE FUNCTION memory.list_revisions(
    tenant uuid, memory uuid, before_revision bigint, most_rows integer, most_bytes bigint
) RETURNS TABLE (row_count bigint, state memory.revision_details) LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
        WITH numbers AS MATERIALIZED (
            (SELECT m.revision FROM memory.memories m
              WHERE m.tenant_id = tenant AND m.memory_id = memory
                AND (before_revision IS NULL OR m.revision < before_revision))
            UNION ALL
            (SELECT r.revision FROM memory.memory_revisions r
              WHERE r.tenant_id = tenant AND r.memory_id = memory AND r.revision < coalesce(before_revision, 1::bigint << 62)
              ORDER BY r.revision DESC LIMIT most_rows)
            ORDER BY revision DESC LIMIT most_rows
        ), filled AS (
            SELECT details::memory.revision_details AS details, numbers.revision, count(*) OVER () AS met,
                   details.byte_count + octet_length(details.reason) AS weight,
                   sum(details.byte_count + octet_length(details.reason)) OVER (ORDER BY numbers.revision DESC) AS filling
              FROM numbers
             CROSS JOIN LATERAL (SELECT * FROM memory.revision_details d
                                  WHERE d.tenant_id = tenant AND d.memory_id = memory
                                    AND d.revision = numbers.revision LIMIT 1) details
        )
        SELECT filled.met, filled.details
          FROM filled WHERE filled.filling <= greatest(most_bytes, filled.weight)
         ORDER BY filled.revision DESC;
END $$;

-- Puts a memory back into a former state, once for each request; no row when there is none, or no such state. The vector
-- is that of the state's content, where it is another than the one that stands.
CREATE OR REPLACE FUNCTION memory.roll_back_memory(
    tenant uuid, request uuid, digest bytea, memory uuid, expected bigint, wanted bigint,
    model smallint, placed vector, change_principal text
) RETURNS SETOF memory.memory_details LANGUAGE plpgsql AS $$
DECLARE
    former jsonb;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT jsonb_build_object(
               'type', type, 'content', content, 'speaker', speaker, 'importance', importance, 'confidence', confidence,
               'trust', trust, 'labels', labels, 'metadata', metadata, 'source_session', source_session,
               'source_sequences', source_sequences, 'source_quote', source_quote, 'valid_from', valid_from,
               'valid_until', valid_until, 'occur_time', occur_time, 'superseded_by', superseded_by)
      INTO former FROM memory.get_revision(tenant, memory, wanted);
    IF former IS NOT NULL THEN
        RETURN QUERY SELECT * FROM memory.change_memory(
            tenant, request, 'RollbackMemory', digest, memory, expected, former, model, placed,
            'rolled_back', format('Rolled back to revision %s.', wanted), change_principal);
    END IF;
END $$;

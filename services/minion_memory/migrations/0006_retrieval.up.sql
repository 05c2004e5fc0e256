-- What a search compares beside the vectors: words, questions, who spoke, and what stood before and after.

-- 'english' stems English and leaves other words as they are, so that those are found in the form in which they stand.
ALTER TABLE memory.memories
    ADD COLUMN words tsvector GENERATED ALWAYS AS (to_tsvector('english', content)) STORED,
    -- Its last sentence asks; a remark in brackets may follow.
    ADD COLUMN is_question boolean GENERATED ALWAYS AS (content ~ '[?][''")]*\s*(\[[^]]*\]|\([^)]*\))?\s*$') STORED;

-- The words of a memory as numbers that no other scope's words have, so that one index holds a list a scope and word:
-- a search reads the lists of its own scope alone, however many tenants say "tea".
CREATE FUNCTION memory.scope_terms(tenant uuid, agent uuid, subject text, words tsvector)
RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
    SELECT coalesce(array_agg(hashtextextended(lexeme, scope.seed)), '{}')
      FROM (SELECT hashtextextended(agent::text || subject, uuid_hash_extended(tenant, 0)) AS seed) scope,
           unnest(tsvector_to_array(words)) AS lexeme;
$$;
-- No list of pending entries: searches would read through it.
CREATE INDEX memories_terms ON memory.memories
    USING gin (memory.scope_terms(tenant_id, agent_id, user_id, words)) WITH (fastupdate = off);
CREATE INDEX memories_turns ON memory.memories (tenant_id, agent_id, user_id, source_session, (source_sequences[1]))
    WHERE type = 'context' AND source_session IS NOT NULL;
CREATE INDEX memories_speakers ON memory.memories (tenant_id, agent_id, user_id, speaker) WHERE speaker <> '';

-- Its successor stands in functions_retrieval.sql.
DROP FUNCTION IF EXISTS memory.search_memories(
    uuid, uuid, text, smallint, vector, text[], double precision, integer, bigint, integer, integer, bigint);
DROP FUNCTION IF EXISTS memory.walk_query(smallint, integer);

-- What a search asks for, as the service hands it to search_memories.
CREATE TYPE memory.search_wish AS (
    agent_id uuid, user_id text, said text, asks_when boolean, months integer[], years integer[],
    types text[], labels jsonb, metadata jsonb, occurred_after timestamptz, occurred_before timestamptz,
    session_id uuid, trusts text[], as_of timestamptz, least_similarity double precision, most integer,
    weights double precision[], half_life interval
);
-- A memory weighed.
CREATE TYPE memory.search_hit AS (
    memory_id uuid, similarity double precision, shares double precision[], byte_count integer
);

-- Indexes hold vectors in half precision (see memory.indexed_type); new models get theirs so from the start.
DO $$
DECLARE
    model memory.embedding_models;
BEGIN
    FOR model IN SELECT * FROM memory.embedding_models WHERE install_time IS NOT NULL AND dimension <= 2000 LOOP
        EXECUTE format('DROP INDEX memory.memory_vectors_%s_hnsw', model.model_id);
        EXECUTE format('CREATE INDEX memory_vectors_%1$s_hnsw ON memory.memory_vectors_%1$s
                         USING hnsw ((embedding::halfvec(%2$s)) halfvec_cosine_ops)', model.model_id, model.dimension);
    END LOOP;
END $$;

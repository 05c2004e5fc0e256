-- Takes back what searches compare beside the vectors. The search function of before comes with the release of before.
DO $$
DECLARE
    model memory.embedding_models;
BEGIN
    FOR model IN SELECT * FROM memory.embedding_models WHERE install_time IS NOT NULL AND dimension <= 2000 LOOP
        EXECUTE format('DROP INDEX memory.memory_vectors_%s_hnsw', model.model_id);
        EXECUTE format('CREATE INDEX memory_vectors_%1$s_hnsw ON memory.memory_vectors_%1$s
                         USING hnsw ((embedding::vector(%2$s)) vector_cosine_ops)', model.model_id, model.dimension);
    END LOOP;
END $$;
DROP TYPE memory.search_hit;
DROP TYPE memory.search_wish;
DROP INDEX memory.memories_speakers;
DROP INDEX memory.memories_turns;
DROP INDEX memory.memories_terms;
DROP FUNCTION memory.scope_terms(uuid, uuid, text, tsvector);
ALTER TABLE memory.memories DROP COLUMN is_question, DROP COLUMN words;

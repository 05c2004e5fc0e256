-- Takes back what searches compare beside the vectors. The search function of before comes with the release of before.
DROP FUNCTION IF EXISTS memory.search_memories(
    uuid, jsonb, smallint, vector, bigint, bigint, integer, integer, bigint);
DROP FUNCTION IF EXISTS memory.weigh(
    uuid, memory.search_wish, smallint, vector, uuid[], uuid[], double precision[], text[]);
DROP TYPE memory.search_hit;
DROP TYPE memory.search_wish;
DROP INDEX memory.memories_speakers;
DROP INDEX memory.memories_turns;
DROP INDEX memory.memories_terms;
DROP FUNCTION memory.scope_terms(uuid, uuid, text, tsvector);
ALTER TABLE memory.memories DROP COLUMN is_question, DROP COLUMN words;

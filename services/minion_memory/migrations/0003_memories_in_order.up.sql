-- no-transaction
-- A session's memories, newest first; and what retention looks for, by when it last changed, in the order of writing.
DROP INDEX CONCURRENTLY IF EXISTS memory.memories_newest_of_session;
CREATE INDEX CONCURRENTLY memories_newest_of_session
    ON memory.memories (tenant_id, source_session, create_time, memory_id) WHERE source_session IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS memory.memories_update_time;
CREATE INDEX CONCURRENTLY memories_update_time ON memory.memories USING brin (updated_at);

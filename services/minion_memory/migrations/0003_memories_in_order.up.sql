-- no-transaction
-- A session's memories, newest first; what retention looks for, by when it last changed; and a user's scopes, for erasure.
DROP INDEX CONCURRENTLY IF EXISTS memory.memories_newest_of_session;
CREATE INDEX CONCURRENTLY memories_newest_of_session
    ON memory.memories (tenant_id, source_session, create_time, memory_id) WHERE source_session IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS memory.memories_update_time;
CREATE INDEX CONCURRENTLY memories_update_time ON memory.memories USING brin (updated_at);
DROP INDEX CONCURRENTLY IF EXISTS memory.scope_counts_of_user;
CREATE INDEX CONCURRENTLY scope_counts_of_user ON memory.scope_counts (tenant_id, user_id);

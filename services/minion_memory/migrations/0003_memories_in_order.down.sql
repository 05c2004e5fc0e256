-- no-transaction
-- Takes back both indexes.
DROP INDEX CONCURRENTLY IF EXISTS memory.memories_newest_of_session;
DROP INDEX CONCURRENTLY IF EXISTS memory.memories_update_time;

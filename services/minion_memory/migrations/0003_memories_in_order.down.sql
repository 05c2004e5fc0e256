-- no-transaction
-- Takes back the indexes.
DROP INDEX CONCURRENTLY IF EXISTS memory.memories_newest_of_session;
DROP INDEX CONCURRENTLY IF EXISTS memory.memories_update_time;
DROP INDEX CONCURRENTLY IF EXISTS memory.scope_counts_of_user;

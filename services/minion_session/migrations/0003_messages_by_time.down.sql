-- no-transaction
DROP INDEX CONCURRENTLY IF EXISTS session.messages_create_time;

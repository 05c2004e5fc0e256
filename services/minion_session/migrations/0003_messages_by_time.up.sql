-- no-transaction
-- For what was said lately: messages come in the order of their times, so that a few pages hold all of it.
DROP INDEX CONCURRENTLY IF EXISTS session.messages_create_time;
CREATE INDEX CONCURRENTLY messages_create_time ON session.messages USING brin (create_time)
    WITH (pages_per_range = 32, autosummarize = on);

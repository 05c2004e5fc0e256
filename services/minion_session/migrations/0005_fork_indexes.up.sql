-- no-transaction
-- Who shares a session's messages, and who was forked from it. No append changes these columns.
DROP INDEX CONCURRENTLY IF EXISTS session.sessions_sharing_with;
CREATE INDEX CONCURRENTLY sessions_sharing_with ON session.sessions (tenant_id, shares_with) WHERE shares_with IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS session.sessions_forked_from;
CREATE INDEX CONCURRENTLY sessions_forked_from ON session.sessions (tenant_id, parent_session_id)
    WHERE parent_session_id IS NOT NULL;

-- Archived sessions become what they were before: closed or expired.
DROP TABLE session.activity_rounds, session.told_activity, session.changes;
DROP INDEX session.messages_create_time;
ALTER TABLE session.sessions DROP COLUMN stage, DROP COLUMN expiry_told_time, DROP COLUMN archive_time,
    DROP COLUMN version;
CREATE INDEX sessions_open ON session.sessions (expire_time) WHERE close_time IS NULL;

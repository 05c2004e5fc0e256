DROP TABLE session.idempotency_keys, session.workspace_entries, session.messages, session.sessions;
DROP FUNCTION session.set_updated_at();

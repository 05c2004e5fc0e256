-- Whose words are not to be drawn again: of an erased user a digest and when, so that sessions which another service still
-- keeps bring nothing back that was said before.
CREATE TABLE memory.erased_subjects (
    tenant_id      uuid        NOT NULL,
    subject_digest bytea       NOT NULL,
    erase_time     timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, subject_digest)
);
ALTER TABLE memory.erased_subjects ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.erased_subjects FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.erased_subjects TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.erased_subjects TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON memory.erased_subjects TO minion_memory_app;

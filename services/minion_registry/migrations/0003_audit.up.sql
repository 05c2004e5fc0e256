-- What was changed, until the activity service has acknowledged it.
CREATE TABLE registry.outbox (
    tenant_id   uuid        NOT NULL,
    activity_id uuid        NOT NULL,
    principal   text        NOT NULL,
    payload     json        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    due_time    timestamptz NOT NULL DEFAULT now(),
    refusals    integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, activity_id)
);
CREATE INDEX outbox_due ON registry.outbox (due_time);
ALTER TABLE registry.outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE registry.outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON registry.outbox TO minion_registry_owner USING (true);
CREATE POLICY app ON registry.outbox TO minion_registry_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON registry.outbox TO minion_registry_app;

-- no-transaction
-- What takes time, with the tables open: indexes, a look at the rows that were there before their rules, and what those
-- rows are found by, in batches. Begun again, it goes on where it was.

DROP INDEX CONCURRENTLY IF EXISTS registry.tenants_status;
CREATE INDEX CONCURRENTLY tenants_status ON registry.tenants (status, name);
DROP INDEX CONCURRENTLY IF EXISTS registry.api_keys_create_time;
CREATE INDEX CONCURRENTLY api_keys_create_time ON registry.api_keys (tenant_id, create_time DESC, api_key_id DESC);
DROP INDEX CONCURRENTLY IF EXISTS registry.tools_status;
CREATE INDEX CONCURRENTLY tools_status ON registry.tools (tenant_id, status, name);

ALTER TABLE registry.tenants VALIDATE CONSTRAINT tenants_status_check;
ALTER TABLE registry.tenants VALIDATE CONSTRAINT tenants_suspended;
ALTER TABLE registry.tenants VALIDATE CONSTRAINT tenants_suspend_reason;
ALTER TABLE registry.api_keys VALIDATE CONSTRAINT api_keys_scopes_check;
ALTER TABLE registry.tools VALIDATE CONSTRAINT tools_transport_check;
ALTER TABLE registry.tools VALIDATE CONSTRAINT tools_approval_check;
ALTER TABLE registry.tools VALIDATE CONSTRAINT tools_status_check;
ALTER TABLE registry.tools VALIDATE CONSTRAINT tools_edition_check;

-- Each tool's labels, as the trigger of 0004 writes them for those that are registered by now.
DO $$
DECLARE
    found record;
    filled bigint := 0;
BEGIN
    FOR found IN SELECT t.tenant_id, t.tool_id FROM registry.tools t LOOP
        INSERT INTO registry.tool_labels (tenant_id, tool_id, key, value, tool_name)
        SELECT t.tenant_id, t.tool_id, l.key, l.value, t.name
          FROM (SELECT * FROM registry.tools t
                 WHERE t.tenant_id = found.tenant_id AND t.tool_id = found.tool_id FOR UPDATE) t,
               jsonb_each_text(t.labels) l
            ON CONFLICT (tenant_id, tool_id, key) DO NOTHING;
        filled := filled + 1;
        IF filled % 100 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$;

-- Each agent's latest revision, and by the triggers of 0005 what it is found by.
DO $$
DECLARE
    found record;
    filled bigint := 0;
BEGIN
    FOR found IN SELECT a.tenant_id, a.agent_id FROM registry.agents a WHERE a.latest_revision = 0 LOOP
        UPDATE registry.agents a SET latest_revision = a.revision
         WHERE a.tenant_id = found.tenant_id AND a.agent_id = found.agent_id AND a.latest_revision = 0;
        filled := filled + 1;
        IF filled % 100 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$;

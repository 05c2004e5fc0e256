-- Tools in full: output schemas, examples, targets of every transport, approval, settings of bindings, credentials by
-- reference, a lifecycle, and labels that lists select by. A tool's digest stays as it was until something that the
-- digest covers changes, so that what is bound stays bound.

ALTER TABLE registry.tools
    DROP CONSTRAINT tools_transport_check,
    ADD CONSTRAINT tools_transport_check CHECK (transport IN ('builtin', 'grpc', 'http', 'mcp', 'agent', 'client')),
    ADD COLUMN output_schema         jsonb,
    ADD COLUMN examples              jsonb  NOT NULL DEFAULT '[]',
    ADD COLUMN documentation         text   NOT NULL DEFAULT '',
    ADD COLUMN target                jsonb  NOT NULL DEFAULT '{}',
    ADD COLUMN approval              text   NOT NULL DEFAULT 'never' CHECK (approval IN ('never', 'always')),
    ADD COLUMN configuration_schema  jsonb,
    ADD COLUMN default_configuration jsonb  NOT NULL DEFAULT '{}',
    ADD COLUMN credentials           jsonb  NOT NULL DEFAULT '[]',
    ADD COLUMN status                text   NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'deprecated', 'retired')),
    ADD COLUMN status_note           text   NOT NULL DEFAULT '',
    -- Counts every change, `version` those of the contents.
    ADD COLUMN edition               bigint NOT NULL DEFAULT 1 CHECK (edition >= 1);
-- Its expression can't be altered before Postgres 17.
ALTER TABLE registry.tools DROP COLUMN wire_bytes;
ALTER TABLE registry.tools ADD COLUMN wire_bytes integer NOT NULL GENERATED ALWAYS AS (
    1000 + octet_length(description) + octet_length(documentation) + octet_length(status_note)
    + 4 * (octet_length(input_schema::text) + octet_length(labels::text) + octet_length(target::text)
           + octet_length(examples::text) + octet_length(default_configuration::text)
           + octet_length(credentials::text) + coalesce(octet_length(output_schema::text), 0)
           + coalesce(octet_length(configuration_schema::text), 0))) STORED;
CREATE INDEX tools_status ON registry.tools (tenant_id, status, name);

ALTER TABLE registry.tool_versions
    ADD COLUMN output_schema         jsonb,
    ADD COLUMN examples              jsonb  NOT NULL DEFAULT '[]',
    ADD COLUMN documentation         text   NOT NULL DEFAULT '',
    ADD COLUMN target                jsonb  NOT NULL DEFAULT '{}',
    ADD COLUMN approval              text   NOT NULL DEFAULT 'never',
    ADD COLUMN configuration_schema  jsonb,
    ADD COLUMN default_configuration jsonb  NOT NULL DEFAULT '{}',
    ADD COLUMN credentials           jsonb  NOT NULL DEFAULT '[]';
ALTER TABLE registry.tool_versions ADD COLUMN wire_bytes integer NOT NULL GENERATED ALWAYS AS (
    5000 + octet_length(description) + octet_length(documentation)
    + 4 * (octet_length(input_schema::text) + octet_length(labels::text) + octet_length(target::text)
           + octet_length(examples::text) + octet_length(default_configuration::text)
           + octet_length(credentials::text) + coalesce(octet_length(output_schema::text), 0)
           + coalesce(octet_length(configuration_schema::text), 0))) STORED;

-- As agents' labels: equality uses an index under row-level security. Repeats the tool's name, the order of the lists.
CREATE TABLE registry.tool_labels (
    tenant_id uuid NOT NULL,
    tool_id   uuid NOT NULL,
    key       text NOT NULL,
    value     text NOT NULL,
    tool_name text NOT NULL,
    PRIMARY KEY (tenant_id, tool_id, key),
    FOREIGN KEY (tenant_id, tool_id) REFERENCES registry.tools ON DELETE CASCADE
);
CREATE INDEX tool_labels_value ON registry.tool_labels (tenant_id, key, value, tool_name);
INSERT INTO registry.tool_labels (tenant_id, tool_id, key, value, tool_name)
SELECT t.tenant_id, t.tool_id, l.key, l.value, t.name FROM registry.tools t, jsonb_each_text(t.labels) l;
ALTER TABLE registry.tool_labels ENABLE ROW LEVEL SECURITY;
ALTER TABLE registry.tool_labels FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON registry.tool_labels TO minion_registry_owner USING (true);
CREATE POLICY app ON registry.tool_labels TO minion_registry_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON registry.tool_labels TO minion_registry_app;
GRANT UPDATE ON registry.tools TO minion_registry_app;

-- The lifecycle, whoever writes: active → deprecated → retired, and active → retired; a retired tool stays as it is.
-- `ToolStatus.may_become` says the same; a test holds them together.
CREATE FUNCTION registry.guard_tool() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'active' THEN
            RAISE EXCEPTION 'TOOL_STATUS_UNSUITABLE' USING ERRCODE = 'MN412',
                DETAIL = 'A tool begins active.',
                HINT = jsonb_build_object('tool_id', NEW.tool_id, 'status', upper(NEW.status))::text;
        END IF;
    ELSIF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('active', 'deprecated'), ('active', 'retired'), ('deprecated', 'retired')
    ) THEN
        RAISE EXCEPTION 'TOOL_TRANSITION_ILLEGAL' USING ERRCODE = 'MN412',
            DETAIL = format('A tool can''t go from %s to %s.', OLD.status, NEW.status),
            HINT = jsonb_build_object('tool_id', OLD.tool_id, 'from', upper(OLD.status), 'to', upper(NEW.status))::text;
    ELSIF OLD.status = 'retired' THEN
        RAISE EXCEPTION 'TOOL_STATUS_UNSUITABLE' USING ERRCODE = 'MN412',
            DETAIL = 'A retired tool takes no changes.',
            HINT = jsonb_build_object('tool_id', OLD.tool_id, 'status', 'RETIRED')::text;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER tools_guard BEFORE INSERT OR UPDATE ON registry.tools
    FOR EACH ROW EXECUTE FUNCTION registry.guard_tool();

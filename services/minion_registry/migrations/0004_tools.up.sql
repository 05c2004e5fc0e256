-- Tools in full: output schemas, examples, targets of every transport, approval, settings of bindings, credentials by
-- reference, a lifecycle, and labels that lists select by. A tool's digest stays as it was until something that the
-- digest covers changes, so that what is bound stays bound.

ALTER TABLE registry.tools
    DROP CONSTRAINT tools_transport_check,
    ADD CONSTRAINT tools_transport_check
        CHECK (transport IN ('builtin', 'grpc', 'http', 'mcp', 'agent', 'client')) NOT VALID,
    ADD COLUMN output_schema         jsonb,
    ADD COLUMN examples              jsonb  NOT NULL DEFAULT '[]',
    ADD COLUMN documentation         text   NOT NULL DEFAULT '',
    ADD COLUMN target                jsonb  NOT NULL DEFAULT '{}',
    ADD COLUMN approval              text   NOT NULL DEFAULT 'never',
    ADD COLUMN configuration_schema  jsonb,
    ADD COLUMN default_configuration jsonb  NOT NULL DEFAULT '{}',
    ADD COLUMN credentials           jsonb  NOT NULL DEFAULT '[]',
    ADD COLUMN status                text   NOT NULL DEFAULT 'active',
    ADD COLUMN status_note           text   NOT NULL DEFAULT '',
    -- Counts every change, `version` those of the contents.
    ADD COLUMN edition               bigint NOT NULL DEFAULT 1,
    ADD CONSTRAINT tools_approval_check CHECK (approval IN ('never', 'always')) NOT VALID,
    ADD CONSTRAINT tools_status_check CHECK (status IN ('active', 'deprecated', 'retired')) NOT VALID,
    ADD CONSTRAINT tools_edition_check CHECK (edition >= 1) NOT VALID,
    -- A trigger reckons it from now on: another expression would write the whole table anew. What stands there is
    -- still no less than what the tools of before take, which have nothing of the above.
    ALTER COLUMN wire_bytes DROP EXPRESSION;

CREATE FUNCTION registry.measure_tool() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.wire_bytes := 1000 + octet_length(NEW.description) + octet_length(NEW.documentation)
        + octet_length(NEW.status_note)
        + 4 * (octet_length(NEW.input_schema::text) + octet_length(NEW.labels::text) + octet_length(NEW.target::text)
               + octet_length(NEW.examples::text) + octet_length(NEW.default_configuration::text)
               + octet_length(NEW.credentials::text) + coalesce(octet_length(NEW.output_schema::text), 0)
               + coalesce(octet_length(NEW.configuration_schema::text), 0));
    RETURN NEW;
END $$;
CREATE TRIGGER tools_wire_bytes
    BEFORE INSERT OR UPDATE OF description, documentation, status_note, input_schema, labels, target, examples,
                               default_configuration, credentials, output_schema, configuration_schema
    ON registry.tools FOR EACH ROW EXECUTE FUNCTION registry.measure_tool();

-- `wire_bytes` is NULL in the versions of before: whoever reads it reckons what they take.
ALTER TABLE registry.tool_versions
    ADD COLUMN output_schema         jsonb,
    ADD COLUMN examples              jsonb   NOT NULL DEFAULT '[]',
    ADD COLUMN documentation         text    NOT NULL DEFAULT '',
    ADD COLUMN target                jsonb   NOT NULL DEFAULT '{}',
    ADD COLUMN approval              text    NOT NULL DEFAULT 'never',
    ADD COLUMN configuration_schema  jsonb,
    ADD COLUMN default_configuration jsonb   NOT NULL DEFAULT '{}',
    ADD COLUMN credentials           jsonb   NOT NULL DEFAULT '[]',
    ADD COLUMN wire_bytes            integer;

CREATE FUNCTION registry.measure_tool_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.wire_bytes := 5000 + octet_length(NEW.description) + octet_length(NEW.documentation)
        + 4 * (octet_length(NEW.input_schema::text) + octet_length(NEW.labels::text) + octet_length(NEW.target::text)
               + octet_length(NEW.examples::text) + octet_length(NEW.default_configuration::text)
               + octet_length(NEW.credentials::text) + coalesce(octet_length(NEW.output_schema::text), 0)
               + coalesce(octet_length(NEW.configuration_schema::text), 0));
    RETURN NEW;
END $$;
CREATE TRIGGER tool_versions_wire_bytes BEFORE INSERT ON registry.tool_versions
    FOR EACH ROW EXECUTE FUNCTION registry.measure_tool_version();

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

-- Keeps the labels that lists select by in step with the tools, whoever writes: the release before this one registers
-- tools too. 0007 brings those of the tools that are there.
CREATE FUNCTION registry.index_tool() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM registry.tool_labels l
     WHERE l.tenant_id = NEW.tenant_id AND l.tool_id = NEW.tool_id AND NOT NEW.labels ? l.key;
    INSERT INTO registry.tool_labels (tenant_id, tool_id, key, value, tool_name)
    SELECT NEW.tenant_id, NEW.tool_id, l.key, l.value, NEW.name FROM jsonb_each_text(NEW.labels) l
        ON CONFLICT (tenant_id, tool_id, key) DO UPDATE SET value = excluded.value, tool_name = excluded.tool_name;
    RETURN NULL;
END $$;
CREATE TRIGGER tools_index AFTER INSERT OR UPDATE OF name, labels ON registry.tools
    FOR EACH ROW EXECUTE FUNCTION registry.index_tool();

-- Tools that the release before can't tell of go, with their bindings; of the others, what it doesn't know.
DROP TRIGGER tools_guard ON registry.tools;
DROP TRIGGER tools_index ON registry.tools;
DROP TRIGGER tools_wire_bytes ON registry.tools;
DROP TRIGGER tool_versions_wire_bytes ON registry.tool_versions;
DROP FUNCTION registry.guard_tool(), registry.index_tool(), registry.measure_tool(), registry.measure_tool_version();
DELETE FROM registry.changes WHERE kind = 'tool_changed';
DELETE FROM registry.agent_tools b USING registry.tools t
 WHERE t.tenant_id = b.tenant_id AND t.tool_id = b.tool_id AND (t.transport <> 'builtin' OR t.status = 'retired');
DELETE FROM registry.tools WHERE transport <> 'builtin' OR status = 'retired';
REVOKE UPDATE ON registry.tools FROM minion_registry_app;
DROP TABLE registry.tool_labels;
ALTER TABLE registry.tool_versions
    DROP COLUMN wire_bytes, DROP COLUMN output_schema, DROP COLUMN examples, DROP COLUMN documentation,
    DROP COLUMN target, DROP COLUMN approval, DROP COLUMN configuration_schema, DROP COLUMN default_configuration,
    DROP COLUMN credentials;
ALTER TABLE registry.tools DROP COLUMN wire_bytes;
ALTER TABLE registry.tools
    DROP CONSTRAINT tools_transport_check,
    ADD CONSTRAINT tools_transport_check CHECK (transport IN ('builtin')),
    DROP COLUMN output_schema, DROP COLUMN examples, DROP COLUMN documentation, DROP COLUMN target,
    DROP COLUMN approval, DROP COLUMN configuration_schema, DROP COLUMN default_configuration,
    DROP COLUMN credentials, DROP COLUMN status, DROP COLUMN status_note, DROP COLUMN edition;
ALTER TABLE registry.tools ADD COLUMN wire_bytes integer NOT NULL GENERATED ALWAYS AS (
    500 + octet_length(description) + 4 * octet_length(input_schema::text) + 4 * octet_length(labels::text)) STORED;

-- Takes staged revisions and what agents are found by away; the live revisions stay.
DROP TRIGGER agents_index ON registry.agents;
DROP TRIGGER agents_index_first ON registry.agents;
DROP TRIGGER agents_latest_is_told ON registry.agents;
DROP TRIGGER agents_latest_revision ON registry.agents;
DROP TRIGGER agents_wire_bytes ON registry.agents;
DROP TRIGGER agent_revisions_wire_bytes ON registry.agent_revisions;
DROP FUNCTION registry.index_agent(), registry.tell_latest_revision(), registry.keep_latest_revision(),
    registry.measure_agent();
CREATE OR REPLACE TRIGGER agents_guard BEFORE INSERT OR UPDATE ON registry.agents
    FOR EACH ROW EXECUTE FUNCTION registry.guard_agent();
CREATE OR REPLACE TRIGGER agents_updated_at BEFORE UPDATE ON registry.agents
    FOR EACH ROW EXECUTE FUNCTION registry.set_updated_at();
DROP FUNCTION IF EXISTS registry.metadata_leaves(jsonb);
DROP TABLE registry.agent_words, registry.agent_metadata;
-- The next update of an agent takes the number after its live revision's.
DELETE FROM registry.agent_revisions r USING registry.agents a
 WHERE a.tenant_id = r.tenant_id AND a.agent_id = r.agent_id AND r.revision > a.revision;
ALTER TABLE registry.agents
    DROP COLUMN latest_revision,
    DROP COLUMN rollout_id,
    DROP COLUMN wire_bytes,
    ADD COLUMN wire_bytes integer NOT NULL GENERATED ALWAYS AS (
        1000 + octet_length(display_name) + octet_length(description) + octet_length(instructions)
        + 260 * cardinality(capabilities) + 4 * octet_length(metadata::text) + 4 * octet_length(labels::text)) STORED;
ALTER TABLE registry.agent_revisions
    DROP COLUMN wire_bytes,
    ADD COLUMN wire_bytes integer NOT NULL GENERATED ALWAYS AS (
        1000 + octet_length(display_name) + octet_length(description) + octet_length(instructions)
        + 260 * cardinality(capabilities) + 4 * octet_length(metadata::text) + 4 * octet_length(labels::text)) STORED;

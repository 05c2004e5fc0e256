-- Revisions that wait for a rollout, and what agents are found by: values of their metadata, words of their texts.

-- `revision` is the live one's number. A rollout takes and gives back `rollout_id`; while it stands, the live revision
-- stays. What an answer must keep to stands in `llm` and takes room in an answer of ours.
ALTER TABLE registry.agents
    ADD COLUMN latest_revision bigint NOT NULL DEFAULT 1,
    ADD COLUMN rollout_id uuid,
    DROP COLUMN wire_bytes,
    ADD COLUMN wire_bytes integer NOT NULL GENERATED ALWAYS AS (
        1000 + octet_length(display_name) + octet_length(description) + octet_length(instructions)
        + 260 * cardinality(capabilities) + 4 * octet_length(metadata::text) + 4 * octet_length(labels::text)
        + 4 * octet_length(llm::text)) STORED;
ALTER TABLE registry.agent_revisions
    DROP COLUMN wire_bytes,
    ADD COLUMN wire_bytes integer NOT NULL GENERATED ALWAYS AS (
        1000 + octet_length(display_name) + octet_length(description) + octet_length(instructions)
        + 260 * cardinality(capabilities) + 4 * octet_length(metadata::text) + 4 * octet_length(labels::text)
        + 4 * octet_length(llm::text)) STORED;

-- Each value that stands somewhere in an agent's metadata: SHA-256 of its place and itself, see metadata_leaves.
CREATE TABLE registry.agent_metadata (
    tenant_id         uuid        NOT NULL,
    agent_id          uuid        NOT NULL,
    leaf              bytea       NOT NULL CHECK (length(leaf) = 32),
    agent_create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, leaf),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES registry.agents ON DELETE CASCADE
);
CREATE INDEX agent_metadata_leaf
    ON registry.agent_metadata (tenant_id, leaf, agent_create_time DESC, agent_id DESC);

-- The stems of an agent's texts, each with what it weighs where it stands best: 10 in a name, 6 in a capability, 3 in
-- the description. One list a tenant and word, newest first: a common word costs no more to look up than a rare one.
CREATE TABLE registry.agent_words (
    tenant_id         uuid             NOT NULL,
    agent_id          uuid             NOT NULL,
    word              text COLLATE "C" NOT NULL,
    weight            smallint         NOT NULL,
    agent_create_time timestamptz      NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, word),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES registry.agents ON DELETE CASCADE
);
CREATE INDEX agent_words_word
    ON registry.agent_words (tenant_id, word, agent_create_time DESC, agent_id DESC) INCLUDE (weight);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['agent_metadata', 'agent_words'] LOOP
        EXECUTE format($sql$
            ALTER TABLE registry.%1$I ENABLE ROW LEVEL SECURITY;
            ALTER TABLE registry.%1$I FORCE ROW LEVEL SECURITY;
            CREATE POLICY owner ON registry.%1$I TO minion_registry_owner USING (true);
            CREATE POLICY app ON registry.%1$I TO minion_registry_app
                USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
                WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
            GRANT SELECT, INSERT, DELETE ON registry.%1$I TO minion_registry_app;
        $sql$, name);
    END LOOP;
END $$;

-- The text of this function is that of functions_agents.sql, which brings it back when a later migration was taken back.
CREATE FUNCTION registry.metadata_leaves(metadata jsonb)
RETURNS SETOF bytea LANGUAGE sql STABLE AS $$
    WITH RECURSIVE node (place, value) AS (
        SELECT '[]'::jsonb, metadata
         UNION ALL
        SELECT inner_node.place, inner_node.value
          FROM node CROSS JOIN LATERAL (
               SELECT node.place || to_jsonb(entry.key) AS place, entry.value
                 FROM jsonb_each(CASE jsonb_typeof(node.value) WHEN 'object' THEN node.value ELSE '{}' END) entry
                UNION ALL
               SELECT node.place, item.value
                 FROM jsonb_array_elements(CASE jsonb_typeof(node.value) WHEN 'array' THEN node.value ELSE '[]' END) item
               ) inner_node
    )
    SELECT DISTINCT sha256(convert_to(jsonb_build_array(place, value)::text, 'UTF8'))
      FROM node WHERE jsonb_typeof(value) NOT IN ('object', 'array');
$$;

-- Keeps what agents are found by in step with them, whoever writes: the release before this one writes agents too.
CREATE FUNCTION registry.index_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM registry.agent_metadata m WHERE m.tenant_id = NEW.tenant_id AND m.agent_id = NEW.agent_id;
    INSERT INTO registry.agent_metadata (tenant_id, agent_id, leaf, agent_create_time)
    SELECT NEW.tenant_id, NEW.agent_id, leaf, NEW.create_time FROM registry.metadata_leaves(NEW.metadata) leaf;
    DELETE FROM registry.agent_words w WHERE w.tenant_id = NEW.tenant_id AND w.agent_id = NEW.agent_id;
    INSERT INTO registry.agent_words (tenant_id, agent_id, word, weight, agent_create_time)
    SELECT NEW.tenant_id, NEW.agent_id, word, max(texts.weight), NEW.create_time
      FROM (VALUES (10, NEW.name || ' ' || NEW.display_name),
                   (6, array_to_string(NEW.capabilities, ' ')),
                   (3, NEW.description)) AS texts (weight, said),
           unnest(tsvector_to_array(to_tsvector('english', texts.said))) AS word
     GROUP BY word;
    RETURN NULL;
END $$;

-- The release before this one counts `revision` alone.
CREATE FUNCTION registry.keep_latest_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.latest_revision := greatest(NEW.latest_revision, NEW.revision); RETURN NEW; END $$;

CREATE TRIGGER agents_latest_revision BEFORE INSERT OR UPDATE ON registry.agents
    FOR EACH ROW EXECUTE FUNCTION registry.keep_latest_revision();
CREATE TRIGGER agents_index AFTER INSERT OR UPDATE OF name, display_name, description, capabilities, metadata
    ON registry.agents FOR EACH ROW EXECUTE FUNCTION registry.index_agent();

-- Agents that are there already: through the triggers, archived ones too, and none of them changes by it.
ALTER TABLE registry.agents DISABLE TRIGGER agents_guard;
ALTER TABLE registry.agents DISABLE TRIGGER agents_updated_at;
UPDATE registry.agents SET metadata = metadata;
ALTER TABLE registry.agents ENABLE TRIGGER agents_guard;
ALTER TABLE registry.agents ENABLE TRIGGER agents_updated_at;

-- Revisions that wait for a rollout, and what agents are found by: values of their metadata, words of their texts.

-- `revision` is the live one's number. A rollout takes and gives back `rollout_id`; while it stands, the live revision
-- stays. `latest_revision` is 0 in the agents that are there, until whatever changes them next, or 0007, has counted it
-- and noted what they are found by.
ALTER TABLE registry.agents
    ADD COLUMN latest_revision bigint NOT NULL DEFAULT 0,
    ADD COLUMN rollout_id uuid,
    -- A trigger reckons it from now on: another expression would write the whole table anew. What an answer must keep to
    -- stands in `llm` and takes room in an answer of ours; nothing of before has it, so that what stands there will do.
    ALTER COLUMN wire_bytes DROP EXPRESSION;
ALTER TABLE registry.agent_revisions ALTER COLUMN wire_bytes DROP EXPRESSION;

CREATE FUNCTION registry.measure_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.wire_bytes := 1000 + octet_length(NEW.display_name) + octet_length(NEW.description)
        + octet_length(NEW.instructions) + 260 * cardinality(NEW.capabilities)
        + 4 * (octet_length(NEW.metadata::text) + octet_length(NEW.labels::text) + octet_length(NEW.llm::text));
    RETURN NEW;
END $$;
CREATE TRIGGER agents_wire_bytes
    BEFORE INSERT OR UPDATE OF display_name, description, instructions, capabilities, metadata, labels, llm
    ON registry.agents FOR EACH ROW EXECUTE FUNCTION registry.measure_agent();
CREATE TRIGGER agent_revisions_wire_bytes BEFORE INSERT ON registry.agent_revisions
    FOR EACH ROW EXECUTE FUNCTION registry.measure_agent();

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

-- Keeps what agents are found by in step with them, whoever writes: the release before this one writes agents too. Its
-- leaves are those of registry.metadata_leaves, which goes when a later migration is taken back, and this stays.
CREATE FUNCTION registry.index_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM registry.agent_metadata m WHERE m.tenant_id = NEW.tenant_id AND m.agent_id = NEW.agent_id;
    WITH RECURSIVE node (place, value) AS (
        SELECT '[]'::jsonb, NEW.metadata
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
    INSERT INTO registry.agent_metadata (tenant_id, agent_id, leaf, agent_create_time)
    SELECT DISTINCT NEW.tenant_id, NEW.agent_id, sha256(convert_to(jsonb_build_array(place, value)::text, 'UTF8')),
           NEW.create_time
      FROM node WHERE jsonb_typeof(value) NOT IN ('object', 'array');
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
CREATE TRIGGER agents_index AFTER INSERT OR UPDATE OF name, display_name, description, capabilities, metadata
    ON registry.agents FOR EACH ROW EXECUTE FUNCTION registry.index_agent();
CREATE TRIGGER agents_index_first AFTER UPDATE ON registry.agents
    FOR EACH ROW WHEN (OLD.latest_revision = 0) EXECUTE FUNCTION registry.index_agent();

-- Who writes `latest_revision` knows of staged revisions. The sign tells the trigger below, the next one by name: a
-- trigger learns which columns a statement sets by being called at all.
CREATE FUNCTION registry.tell_latest_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.latest_revision := -NEW.latest_revision; RETURN NEW; END $$;
CREATE TRIGGER agents_latest_is_told BEFORE UPDATE OF latest_revision ON registry.agents
    FOR EACH ROW EXECUTE FUNCTION registry.tell_latest_revision();

-- The release before this one counts `revision` alone, and knows neither staged revisions nor rollouts: its next one
-- takes the number after all of them, and none takes the place of a live one that is under comparison.
CREATE FUNCTION registry.keep_latest_revision() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_told boolean := NEW.latest_revision < 0;
BEGIN
    NEW.latest_revision := abs(NEW.latest_revision);
    IF TG_OP = 'UPDATE' AND NEW.revision <> OLD.revision THEN
        -- A rollout's candidate may become the live revision, by those who know that it is one.
        IF OLD.rollout_id IS NOT NULL AND (NOT is_told OR EXISTS (
            SELECT FROM registry.rollouts r
             WHERE r.tenant_id = OLD.tenant_id AND r.rollout_id = OLD.rollout_id AND r.candidate_revision <> NEW.revision
        )) THEN
            RAISE EXCEPTION 'ROLLOUT_RUNNING' USING ERRCODE = 'MN412',
                DETAIL = 'A rollout compares the agent''s live revision with another.',
                HINT = jsonb_build_object('agent_id', OLD.agent_id, 'rollout_id', OLD.rollout_id)::text;
        END IF;
        IF NOT is_told THEN
            NEW.revision := greatest(OLD.latest_revision, OLD.revision) + 1;
        END IF;
    END IF;
    NEW.latest_revision := greatest(NEW.latest_revision, NEW.revision);
    RETURN NEW;
END $$;
CREATE TRIGGER agents_latest_revision BEFORE INSERT OR UPDATE ON registry.agents
    FOR EACH ROW EXECUTE FUNCTION registry.keep_latest_revision();

-- Counting the latest revision changes no agent, so that archived ones may be counted as well.
CREATE OR REPLACE TRIGGER agents_guard
    BEFORE INSERT OR UPDATE OF tenant_id, agent_id, name, display_name, description, behavior_type, instructions, llm,
                               capabilities, behavior, metadata, labels, status, revision, version, create_time,
                               updated_at, rollout_id
    ON registry.agents FOR EACH ROW EXECUTE FUNCTION registry.guard_agent();
CREATE OR REPLACE TRIGGER agents_updated_at
    BEFORE UPDATE OF tenant_id, agent_id, name, display_name, description, behavior_type, instructions, llm,
                     capabilities, behavior, metadata, labels, status, revision, version, create_time, updated_at,
                     rollout_id
    ON registry.agents FOR EACH ROW EXECUTE FUNCTION registry.set_updated_at();

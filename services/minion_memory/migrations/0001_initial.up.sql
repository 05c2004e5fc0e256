-- Memories, their vectors, and how many each agent has of each user.

CREATE FUNCTION memory.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

-- The models that vectors are made with; one row for the whole deployment, so there is no tenant in it. A row is a
-- wish: `install_embedding_models` makes the partition and the index, then sets `install_time`.
CREATE TABLE memory.embedding_models (
    model_id     smallint    PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name         text        NOT NULL UNIQUE CHECK (name <> ''),
    provider     text        NOT NULL,
    dimension    integer     NOT NULL CHECK (dimension BETWEEN 1 AND 4000),
    distance     text        NOT NULL DEFAULT 'cosine' CHECK (distance = 'cosine'),
    install_time timestamptz,
    create_time  timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON memory.embedding_models TO minion_memory_app;
INSERT INTO memory.embedding_models (name, provider, dimension)
     VALUES ('local/all-minilm-l6-v2', 'local', 384),
            ('openai/text-embedding-3-small', 'openai', 1536);

CREATE TABLE memory.memories (
    tenant_id        uuid             NOT NULL,
    memory_id        uuid             NOT NULL,
    agent_id         uuid             NOT NULL,
    user_id          text             NOT NULL,
    key              text             NOT NULL,
    type             text             NOT NULL CHECK (type IN ('fact', 'preference', 'context', 'skill')),
    content          text             NOT NULL,
    speaker          text             NOT NULL DEFAULT '',
    importance       double precision NOT NULL CHECK (importance BETWEEN 0 AND 1),
    confidence       double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    trust            text             NOT NULL CHECK (trust IN ('asserted', 'user', 'tool')),
    labels           jsonb            NOT NULL DEFAULT '{}',
    metadata         jsonb            NOT NULL DEFAULT '{}',
    source_session   uuid,
    source_sequences bigint[]         NOT NULL DEFAULT '{}',
    source_quote     text             NOT NULL DEFAULT '',
    model_id         smallint,
    create_time      timestamptz      NOT NULL DEFAULT now(),
    updated_at       timestamptz      NOT NULL DEFAULT now(),
    -- What it takes on the wire at most, so that replies can be bounded. Each JSON value begins after one of `,[{` and
    -- takes up to twelve bytes beside its text, as a number does.
    byte_count       integer          GENERATED ALWAYS AS (
        1024 + octet_length(user_id) + octet_length(key) + octet_length(content) + octet_length(speaker)
             + octet_length(source_quote) + 10 * cardinality(source_sequences) + octet_length(labels::text)
             + octet_length(metadata::text)
             + 12 * (octet_length(metadata::text) - octet_length(translate(metadata::text, ',[{', '')))) STORED,
    PRIMARY KEY (tenant_id, memory_id)
);
-- One index a combination of ListMemories' filters, newest first; the one by user also serves erasure.
CREATE INDEX memories_newest ON memory.memories (tenant_id, create_time, memory_id);
CREATE INDEX memories_newest_of_agent ON memory.memories (tenant_id, agent_id, create_time, memory_id);
CREATE INDEX memories_newest_of_user ON memory.memories (tenant_id, user_id, create_time, memory_id);
CREATE INDEX memories_newest_of_scope ON memory.memories (tenant_id, agent_id, user_id, create_time, memory_id);
CREATE INDEX memories_metadata ON memory.memories USING gin (metadata jsonb_path_ops);
-- Made last: of indexes that seem equal, as all do before the first ANALYZE, the planner takes the latest.
CREATE UNIQUE INDEX memories_by_key ON memory.memories (tenant_id, agent_id, user_id, key);
ALTER TABLE memory.memories ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.memories FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.memories TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.memories TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
-- A memory never moves to another agent, user or key: counts and vectors hang on that.
GRANT SELECT, INSERT, DELETE,
      UPDATE (type, content, speaker, importance, confidence, trust, labels, metadata,
              source_session, source_sequences, source_quote, model_id, updated_at)
   ON memory.memories TO minion_memory_app;
CREATE TRIGGER memories_updated_at BEFORE UPDATE ON memory.memories
    FOR EACH ROW EXECUTE FUNCTION memory.set_updated_at();

-- One partition a model, each with an HNSW index over the model's dimension, so the column's type leaves it open. Scope
-- and type stand here again, so that an index walk can filter without leaving the table. There is no foreign key: the one
-- way in is a function that holds the scope's lock, and a foreign key would look each memory up again.
CREATE TABLE memory.memory_vectors (
    tenant_id uuid     NOT NULL,
    memory_id uuid     NOT NULL,
    model_id  smallint NOT NULL,
    agent_id  uuid     NOT NULL,
    user_id   text     NOT NULL,
    type      text     NOT NULL,
    embedding vector   NOT NULL,
    PRIMARY KEY (tenant_id, memory_id, model_id)
) PARTITION BY LIST (model_id);
CREATE INDEX memory_vectors_scope ON memory.memory_vectors (tenant_id, agent_id, user_id, type);
ALTER TABLE memory.memory_vectors ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.memory_vectors FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.memory_vectors TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.memory_vectors TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.memory_vectors TO minion_memory_app;

-- How many memories of each type an agent has of a user: decides how a search goes. Its row is also the scope's lock.
CREATE TABLE memory.scope_counts (
    tenant_id        uuid   NOT NULL,
    agent_id         uuid   NOT NULL,
    user_id          text   NOT NULL,
    fact_count       bigint NOT NULL DEFAULT 0 CHECK (fact_count >= 0),
    preference_count bigint NOT NULL DEFAULT 0 CHECK (preference_count >= 0),
    context_count    bigint NOT NULL DEFAULT 0 CHECK (context_count >= 0),
    skill_count      bigint NOT NULL DEFAULT 0 CHECK (skill_count >= 0),
    memory_count     bigint GENERATED ALWAYS AS (fact_count + preference_count + context_count + skill_count) STORED,
    PRIMARY KEY (tenant_id, agent_id, user_id)
) WITH (fillfactor = 80);
ALTER TABLE memory.scope_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.scope_counts FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.scope_counts TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.scope_counts TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON memory.scope_counts TO minion_memory_app;

-- Keeps the counts, whoever writes memories: by statement, in the writer's own transaction.
CREATE FUNCTION memory.keep_counts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    gone record;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NOT EXISTS (SELECT FROM added JOIN removed USING (tenant_id, memory_id) WHERE added.type <> removed.type) THEN
            RETURN NULL;
        END IF;
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        INSERT INTO memory.scope_counts AS scope (
            tenant_id, agent_id, user_id, fact_count, preference_count, context_count, skill_count)
        SELECT tenant_id, agent_id, user_id,
               count(*) FILTER (WHERE type = 'fact'), count(*) FILTER (WHERE type = 'preference'),
               count(*) FILTER (WHERE type = 'context'), count(*) FILTER (WHERE type = 'skill')
          FROM added GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, agent_id, user_id) DO UPDATE
           SET fact_count = scope.fact_count + excluded.fact_count,
               preference_count = scope.preference_count + excluded.preference_count,
               context_count = scope.context_count + excluded.context_count,
               skill_count = scope.skill_count + excluded.skill_count;
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        FOR gone IN SELECT tenant_id, agent_id, user_id,
                           count(*) FILTER (WHERE type = 'fact') AS facts,
                           count(*) FILTER (WHERE type = 'preference') AS preferences,
                           count(*) FILTER (WHERE type = 'context') AS contexts,
                           count(*) FILTER (WHERE type = 'skill') AS skills
                      FROM removed GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LOOP
            UPDATE memory.scope_counts
               SET fact_count = fact_count - gone.facts, preference_count = preference_count - gone.preferences,
                   context_count = context_count - gone.contexts, skill_count = skill_count - gone.skills
             WHERE tenant_id = gone.tenant_id AND agent_id = gone.agent_id AND user_id = gone.user_id;
        END LOOP;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_inserted AFTER INSERT ON memory.memories REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION memory.keep_counts();
CREATE TRIGGER count_updated AFTER UPDATE ON memory.memories REFERENCING OLD TABLE AS removed NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION memory.keep_counts();
CREATE TRIGGER count_deleted AFTER DELETE ON memory.memories REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION memory.keep_counts();

-- A memory's vectors go with it, whoever deletes it; one by one, so that each is found by its key.
CREATE FUNCTION memory.delete_vectors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM memory.memory_vectors WHERE tenant_id = OLD.tenant_id AND memory_id = OLD.memory_id;
    RETURN NULL;
END $$;
CREATE TRIGGER delete_vectors AFTER DELETE ON memory.memories
    FOR EACH ROW EXECUTE FUNCTION memory.delete_vectors();

-- A memory to store, as the service hands it to store_memories.
CREATE TYPE memory.store_item AS (
    memory_id uuid, agent_id uuid, user_id text, key text, type text, content text, speaker text,
    importance double precision, confidence double precision, trust text, labels jsonb, metadata jsonb,
    source_session uuid, source_sequences bigint[], source_quote text, model_id smallint, vector_given boolean
);

-- A memory as the service reads it.
CREATE VIEW memory.memory_details WITH (security_invoker = true) AS
SELECT m.tenant_id, m.memory_id, m.agent_id, m.user_id, m.key, m.type, m.content, m.speaker, m.importance,
       m.confidence, m.trust, m.labels, m.metadata, m.source_session, m.source_sequences, m.source_quote,
       coalesce(e.name, '') AS embedding_model, m.create_time, m.updated_at AS update_time,
       m.byte_count
  FROM memory.memories m LEFT JOIN memory.embedding_models e USING (model_id);
GRANT SELECT ON memory.memory_details TO minion_memory_app;

CREATE TABLE memory.idempotency_keys (
    tenant_id   uuid        NOT NULL,
    request_id  uuid        NOT NULL,
    method      text        NOT NULL,
    digest      bytea       NOT NULL,
    subject     text,       -- whose content the result holds, so that erasure reaches it
    result      jsonb,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, request_id)
) WITH (fillfactor = 80);
CREATE INDEX idempotency_keys_create_time ON memory.idempotency_keys USING brin (create_time);
CREATE INDEX idempotency_keys_subject ON memory.idempotency_keys (tenant_id, subject) WHERE subject IS NOT NULL;
ALTER TABLE memory.idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.idempotency_keys TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.idempotency_keys TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.idempotency_keys TO minion_memory_app;

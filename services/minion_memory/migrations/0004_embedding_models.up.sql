-- Which model a tenant's memories are embedded with, and the moves from one to another.

-- A tenant that chose a model has a row; all others use the deployment's. `epoch` counts the choices. `swept` says that
-- the vectors of other models are gone since the last one; `due_time` keeps replicas apart that sweep.
CREATE TABLE memory.tenant_models (
    tenant_id   uuid        PRIMARY KEY,
    model_id    smallint    NOT NULL REFERENCES memory.embedding_models,
    epoch       bigint      NOT NULL DEFAULT 1,
    swept       boolean     NOT NULL DEFAULT false,
    due_time    timestamptz NOT NULL DEFAULT now(),
    create_time timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tenant_models_due ON memory.tenant_models (due_time) WHERE NOT swept;
ALTER TABLE memory.tenant_models ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.tenant_models FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.tenant_models TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.tenant_models TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON memory.tenant_models TO minion_memory_app;
CREATE TRIGGER tenant_models_updated_at BEFORE UPDATE ON memory.tenant_models
    FOR EACH ROW EXECUTE FUNCTION memory.set_updated_at();

-- The moves. A worker holds one until `lease_until`, by the database's clock; `epoch` fences off the one before it.
-- `after_id` is how far the pass in hand has come; until `closing_until` writers wait. The counts are kept when it ends;
-- before, they are counted.
CREATE TABLE memory.reembeddings (
    tenant_id      uuid        NOT NULL,
    reembedding_id uuid        NOT NULL,
    from_model     text        NOT NULL,
    to_model       smallint    NOT NULL REFERENCES memory.embedding_models,
    state          text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'completed', 'failed')),
    principal      text        NOT NULL,
    after_id       uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    memory_count   bigint      NOT NULL DEFAULT 0,
    done_count     bigint      NOT NULL DEFAULT 0,
    failure_count  integer     NOT NULL DEFAULT 0,
    error          text        NOT NULL DEFAULT '',
    epoch          bigint      NOT NULL DEFAULT 0,
    lease_until    timestamptz NOT NULL DEFAULT '-infinity',
    closing_until  timestamptz NOT NULL DEFAULT '-infinity',
    create_time    timestamptz NOT NULL DEFAULT now(),
    progress_time  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, reembedding_id)
);
CREATE UNIQUE INDEX reembeddings_running ON memory.reembeddings (tenant_id) WHERE state = 'running';
CREATE INDEX reembeddings_due ON memory.reembeddings (lease_until) WHERE state = 'running';
ALTER TABLE memory.reembeddings ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.reembeddings FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON memory.reembeddings TO minion_memory_owner USING (true);
CREATE POLICY app ON memory.reembeddings TO minion_memory_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON memory.reembeddings TO minion_memory_app;

-- Of a content that is no more, only the vector of the memory's own model may stay, which its writer sees to: one made
-- for a move goes, and a later pass makes it anew.
CREATE FUNCTION memory.drop_moved_vectors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM memory.memory_vectors
     WHERE tenant_id = NEW.tenant_id AND memory_id = NEW.memory_id AND model_id IS DISTINCT FROM NEW.model_id;
    RETURN NULL;
END $$;
CREATE TRIGGER drop_moved_vectors AFTER UPDATE OF content ON memory.memories
    FOR EACH ROW WHEN (NEW.content <> OLD.content) EXECUTE FUNCTION memory.drop_moved_vectors();

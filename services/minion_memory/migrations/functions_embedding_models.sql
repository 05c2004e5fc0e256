-- The models of the deployment, and which one a tenant's memories are embedded with.

-- The lock of a tenant's choice of a model: shared by whoever writes memories (see lock_scopes), and held alone by
-- whoever changes the choice, so that no vector of the model before is on its way meanwhile.
CREATE OR REPLACE FUNCTION memory.model_lock(tenant uuid) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended('minion memory model ' || tenant, 0);
$$;

-- Raises unless vectors of the model go with the tenant's choice: a tenant that chose one has vectors of that alone. For
-- functions that compare or place vectors: a caller that holds an older choice reads it again, and embeds anew.
CREATE OR REPLACE FUNCTION memory.require_model(tenant uuid, model smallint)
RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM memory.tenant_models chosen WHERE chosen.tenant_id = tenant AND chosen.model_id <> model) THEN
        RAISE EXCEPTION 'EMBEDDING_MODEL_MOVED' USING ERRCODE = 'MN410',
            DETAIL = 'The memories were moved to another embedding model just now.';
    END IF;
END $$;

-- The same for writers of memories, who hold the lock already (see lock_scopes); NULL stands for a memory that waits for
-- its vector. While a move ends (see close_reembedding) nobody may add to what lacks the new one: try again in a moment.
CREATE OR REPLACE FUNCTION memory.admit_vectors(tenant uuid, models smallint[])
RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    model smallint;
BEGIN
    IF EXISTS (SELECT FROM memory.reembeddings r
                WHERE r.tenant_id = tenant AND r.state = 'running' AND r.closing_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'EMBEDDING_MODEL_MOVING' USING ERRCODE = 'MN410',
            DETAIL = 'The memories are about to be moved to another embedding model.';
    END IF;
    FOREACH model IN ARRAY models LOOP
        PERFORM memory.require_model(tenant, model);
    END LOOP;
END $$;

-- Registers a model, or finds the one of this name. For all tenants, so the owner does it.
CREATE OR REPLACE FUNCTION memory.register_embedding_model(model_name text, vector_dimension integer)
RETURNS SETOF memory.embedding_models LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Looked up first: a conflict would use up a number, and there are 32,767 of them.
    IF NOT EXISTS (SELECT FROM memory.embedding_models WHERE name = model_name) THEN
        INSERT INTO memory.embedding_models (name, provider, dimension)
             VALUES (model_name, split_part(model_name, '/', 1), vector_dimension)
        ON CONFLICT (name) DO NOTHING;
    END IF;
    RETURN QUERY SELECT * FROM memory.embedding_models WHERE name = model_name;
END $$;

-- The model that a tenant chose; NULL where it chose none.
CREATE OR REPLACE FUNCTION memory.get_tenant_model(tenant uuid) RETURNS smallint LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN (SELECT model_id FROM memory.tenant_models WHERE tenant_id = tenant);
END $$;

-- Whether a tenant has a memory without this model's vector.
CREATE OR REPLACE FUNCTION memory.lacks_vectors(tenant uuid, model smallint)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM memory.memories m
                    WHERE m.tenant_id = tenant
                      AND NOT EXISTS (SELECT FROM memory.memory_vectors v
                                       WHERE v.tenant_id = tenant AND v.memory_id = m.memory_id AND v.model_id = model));
$$;

-- Writes a tenant's choice, under its lock.
CREATE OR REPLACE FUNCTION memory.choose_model(tenant uuid, model smallint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO memory.tenant_models AS chosen (tenant_id, model_id) VALUES (tenant, model)
    ON CONFLICT (tenant_id) DO UPDATE
       SET model_id = excluded.model_id, epoch = chosen.epoch + 1, swept = false, due_time = clock_timestamp()
     WHERE chosen.model_id <> excluded.model_id;
$$;

-- Makes a model the tenant's, where no memory lacks its vector.
CREATE OR REPLACE FUNCTION memory.set_tenant_model(tenant uuid, model smallint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    running uuid;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true), set_config('lock_timeout', '3s', true);
    PERFORM pg_advisory_xact_lock(memory.model_lock(tenant));
    SELECT reembedding_id INTO running FROM memory.reembeddings WHERE tenant_id = tenant AND state = 'running';
    IF FOUND THEN
        RAISE EXCEPTION 'REEMBEDDING_RUNNING' USING ERRCODE = 'MN412',
            DETAIL = 'The memories are being moved to another embedding model.',
            HINT = jsonb_build_object('reembedding_id', running)::text;
    END IF;
    IF memory.lacks_vectors(tenant, model) THEN
        RAISE EXCEPTION 'REEMBEDDING_NEEDED' USING ERRCODE = 'MN412',
            DETAIL = 'There are memories that the model has not embedded: move them with ReembedMemories.';
    END IF;
    PERFORM memory.choose_model(tenant, model);
END $$;

-- Takes tenants whose vectors of other models are still to be removed, and keeps other replicas off them for a while.
CREATE OR REPLACE FUNCTION memory.claim_sweeps(most integer, hold interval)
RETURNS TABLE (tenant_id uuid, epoch bigint) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE memory.tenant_models t SET due_time = clock_timestamp() + hold
      FROM (SELECT due.tenant_id FROM memory.tenant_models due
             WHERE NOT due.swept AND due.due_time <= clock_timestamp()
             ORDER BY due.due_time LIMIT most FOR UPDATE SKIP LOCKED) picked
     WHERE t.tenant_id = picked.tenant_id
    RETURNING t.tenant_id, t.epoch;
$$;

-- Removes the vectors of other models from the tenant's next memories, those of a move under way excepted, and notes the
-- model at the memories. Returns the last one's id; NULL when all are done, or the tenant has chosen anew. A memory that
-- hasn't the model's vector keeps what it has.
CREATE OR REPLACE FUNCTION memory.sweep_vectors(
    tenant uuid, choice bigint, after uuid, most integer, hold interval
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    model smallint;
    target smallint;
    batch uuid[];
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    -- Before the row, as whoever changes the choice does.
    PERFORM pg_advisory_xact_lock_shared(memory.model_lock(tenant));
    UPDATE memory.tenant_models SET due_time = clock_timestamp() + hold
     WHERE tenant_id = tenant AND epoch = choice AND NOT swept
    RETURNING model_id INTO model;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT to_model INTO target FROM memory.reembeddings WHERE tenant_id = tenant AND state = 'running';
    batch := ARRAY(SELECT memory_id FROM memory.memories WHERE tenant_id = tenant AND memory_id > after
                    ORDER BY memory_id LIMIT most);
    IF cardinality(batch) = 0 THEN
        UPDATE memory.tenant_models SET swept = true WHERE tenant_id = tenant;
        RETURN NULL;
    END IF;
    PERFORM memory.lock_scopes_of(tenant, batch);
    UPDATE memory.memories m SET model_id = model
     WHERE m.tenant_id = tenant AND m.memory_id = ANY (batch) AND m.model_id IS DISTINCT FROM model
       AND EXISTS (SELECT FROM memory.memory_vectors v
                    WHERE v.tenant_id = tenant AND v.memory_id = m.memory_id AND v.model_id = model);
    DELETE FROM memory.memory_vectors old
     WHERE old.tenant_id = tenant AND old.memory_id = ANY (batch) AND old.model_id <> model
       AND old.model_id IS DISTINCT FROM target
       AND EXISTS (SELECT FROM memory.memory_vectors v
                    WHERE v.tenant_id = tenant AND v.memory_id = old.memory_id AND v.model_id = model);
    RETURN batch[cardinality(batch)];
END $$;

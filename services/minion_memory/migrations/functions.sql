-- The functions of the memory service. Those that the service calls set the tenant themselves and run as the caller, so
-- that row-level security stands behind every predicate written here.

-- How the index of a model of so many dimensions holds its vectors: in half precision, which finds the same neighbours in
-- half the memory, and faster, and goes to 4,000 dimensions (`vector` to 2,000). The table keeps full precision, and the
-- candidates of a walk are compared by it.
CREATE OR REPLACE FUNCTION memory.indexed_type(dimension integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('halfvec(%s)', dimension);
$$;

-- Makes partition, policies and HNSW index of every model that has none yet; returns the models. For the owner, since it
-- is DDL: here below for the models of this release, in the maintenance for those registered later, by whichever replica
-- comes first. The new table is attached, not created in place, so that reads and writes of the others go on.
CREATE OR REPLACE FUNCTION memory.install_embedding_models() RETURNS SETOF smallint LANGUAGE plpgsql AS $$
DECLARE
    model memory.embedding_models;
    partition text;
    indexed text;
BEGIN
    FOR model IN SELECT * FROM memory.embedding_models WHERE install_time IS NULL ORDER BY model_id
                    FOR UPDATE SKIP LOCKED LOOP
        partition := format('memory.memory_vectors_%s', model.model_id);
        indexed := memory.indexed_type(model.dimension);
        EXECUTE format('CREATE TABLE %s (LIKE memory.memory_vectors INCLUDING DEFAULTS INCLUDING STORAGE,
                                         CHECK (model_id = %s), CHECK (vector_dims(embedding) = %s))',
                       partition, model.model_id, model.dimension);
        EXECUTE format('ALTER TABLE memory.memory_vectors ATTACH PARTITION %s FOR VALUES IN (%s)',
                       partition, model.model_id);
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', partition);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', partition);
        -- The service reaches its rows through the parent alone, whose policies then count.
        EXECUTE format('CREATE POLICY owner ON %s TO minion_memory_owner USING (true)', partition);
        EXECUTE format('CREATE INDEX memory_vectors_%s_hnsw ON %s USING hnsw ((embedding::%s) %s)',
                       model.model_id, partition, indexed, split_part(indexed, '(', 1) || '_cosine_ops');
        UPDATE memory.embedding_models SET install_time = now() WHERE model_id = model.model_id;
        RETURN NEXT model.model_id;
    END LOOP;
    -- At the first installation the function is yet to come, and is called when it does.
    IF FOUND AND to_regprocedure('memory.make_walk()') IS NOT NULL THEN
        PERFORM memory.make_walk();
    END IF;
END $$;
REVOKE EXECUTE ON FUNCTION memory.install_embedding_models() FROM minion_memory_app;
SELECT memory.install_embedding_models();

-- Locks scopes until the end of the transaction, making the rows of new ones; `agents` and `users` run in parallel.
-- Whoever writes memories locks first and in this order, so that writers of one scope take turns and none deadlock. The
-- tenant's model doesn't change meanwhile either.
CREATE OR REPLACE FUNCTION memory.lock_scopes(tenant uuid, agents uuid[], users text[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wanted record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(memory.model_lock(tenant));
    INSERT INTO memory.scope_counts (tenant_id, agent_id, user_id)
    SELECT DISTINCT tenant, given.agent_id, given.user_id FROM unnest(agents, users) AS given (agent_id, user_id)
     ORDER BY 2, 3
    ON CONFLICT DO NOTHING;
    FOR wanted IN SELECT DISTINCT given.agent_id, given.user_id
                    FROM unnest(agents, users) AS given (agent_id, user_id) ORDER BY 1, 2 LOOP
        LOOP
            PERFORM FROM memory.scope_counts scope
               WHERE scope.tenant_id = tenant AND scope.agent_id = wanted.agent_id AND scope.user_id = wanted.user_id
                 FOR UPDATE;
            EXIT WHEN FOUND;
            -- An erasure took the row while we waited for it.
            INSERT INTO memory.scope_counts (tenant_id, agent_id, user_id)
                 VALUES (tenant, wanted.agent_id, wanted.user_id) ON CONFLICT DO NOTHING;
        END LOOP;
    END LOOP;
END $$;

-- Locks a scope that has memories; of one that an erasure took while we waited no row is made again, which would name its
-- user. For the two below.
CREATE OR REPLACE FUNCTION memory.lock_known_scope(tenant uuid, agent uuid, subject text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        PERFORM FROM memory.scope_counts scope
           WHERE scope.tenant_id = tenant AND scope.agent_id = agent AND scope.user_id = subject FOR UPDATE;
        EXIT WHEN FOUND;
        -- Whoever stores for the user anew has made another row.
        EXIT WHEN NOT EXISTS (SELECT FROM memory.scope_counts scope
                               WHERE scope.tenant_id = tenant AND scope.agent_id = agent AND scope.user_id = subject);
    END LOOP;
END $$;

-- Locks the scope of a memory, where there is one, as lock_scopes does.
CREATE OR REPLACE FUNCTION memory.lock_scope_of(tenant uuid, memory uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    agent uuid;
    subject text;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(memory.model_lock(tenant));
    SELECT m.agent_id, m.user_id INTO agent, subject FROM memory.memories m
     WHERE m.tenant_id = tenant AND m.memory_id = memory;
    IF FOUND THEN
        PERFORM memory.lock_known_scope(tenant, agent, subject);
    END IF;
END $$;

-- The same for several, in the order of lock_scopes. Key by key: see store_memories.
CREATE OR REPLACE FUNCTION memory.lock_scopes_of(tenant uuid, ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wanted record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(memory.model_lock(tenant));
    FOR wanted IN SELECT DISTINCT m.agent_id, m.user_id FROM unnest(ids) AS one (id)
                   CROSS JOIN LATERAL (SELECT known.agent_id, known.user_id FROM memory.memories known
                                        WHERE known.tenant_id = tenant AND known.memory_id = one.id LIMIT 1) m
                   ORDER BY 1, 2 LOOP
        PERFORM memory.lock_known_scope(tenant, wanted.agent_id, wanted.user_id);
    END LOOP;
END $$;

-- The first result of a store; NULL when it is new. Asked before texts are embedded, so that a repeat pays nothing.
CREATE OR REPLACE FUNCTION memory.recall_store(tenant uuid, request uuid, digest bytea)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN memory.recall_request(tenant, request, 'StoreMemories', digest);
END $$;

-- A memory, or no row.
CREATE OR REPLACE FUNCTION memory.get_memory(tenant uuid, memory uuid)
RETURNS SETOF memory.memory_details LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT * FROM memory.memory_details WHERE tenant_id = tenant AND memory_id = memory;
END $$;

-- Deletes a memory, all that hangs on it with it; false when there is none. A repeat of the request returns true.
CREATE OR REPLACE FUNCTION memory.delete_memory(tenant uuid, request uuid, digest bytea, memory uuid)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    deleted boolean;
    subject text;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    PERFORM memory.lock_scope_of(tenant, memory);
    IF request IS NOT NULL AND memory.recall_request(tenant, request, 'DeleteMemory', digest) IS NOT NULL THEN
        RETURN true;
    END IF;
    DELETE FROM memory.memories WHERE tenant_id = tenant AND memory_id = memory RETURNING user_id INTO subject;
    deleted := FOUND;
    IF deleted AND request IS NOT NULL THEN
        INSERT INTO memory.idempotency_keys (tenant_id, request_id, method, digest, subject, result)
             VALUES (tenant, request, 'DeleteMemory', delete_memory.digest, subject, '{}');
    END IF;
    RETURN deleted;
END $$;

-- What minion_postgres needs of every schema with idempotent writes.

-- Claims a request for the running transaction. The first caller gets claimed = true and does the work; a repeat waits
-- for the first, then gets claimed = false and the first result. Another body or method raises MN409.
CREATE OR REPLACE FUNCTION memory.claim_request(
    tenant uuid, request uuid, request_method text, request_digest bytea, request_subject text,
    OUT claimed boolean, OUT first_result jsonb
) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory.idempotency_keys (tenant_id, request_id, method, digest, subject)
         VALUES (tenant, request, request_method, request_digest, request_subject)
    ON CONFLICT (tenant_id, request_id) DO NOTHING;
    claimed := FOUND;
    IF NOT claimed THEN
        first_result := memory.recall_request(tenant, request, request_method, request_digest);
    END IF;
END $$;

-- Keeps the result of a claimed request, in the transaction that claimed it.
CREATE OR REPLACE FUNCTION memory.record_result(tenant uuid, request uuid, request_result jsonb)
RETURNS void LANGUAGE sql AS $$
    UPDATE memory.idempotency_keys SET result = request_result WHERE tenant_id = tenant AND request_id = request;
$$;

-- The first result of a request; NULL when it is new. Another body or method raises MN409. VOLATILE on purpose: it must
-- see what was committed while the caller waited for a lock.
CREATE OR REPLACE FUNCTION memory.recall_request(
    tenant uuid, request uuid, request_method text, request_digest bytea
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    known memory.idempotency_keys;
BEGIN
    SELECT * INTO known FROM memory.idempotency_keys WHERE tenant_id = tenant AND request_id = request;
    IF FOUND AND (known.method <> request_method OR known.digest <> request_digest) THEN
        RAISE EXCEPTION 'REQUEST_ID_REUSED' USING ERRCODE = 'MN409',
            DETAIL = 'This request_id came before with another request.',
            HINT = jsonb_build_object('request_id', request)::text;
    END IF;
    RETURN known.result;
END $$;

-- Deletes keys older than an age, of all tenants, at most so many at once; returns how many went. None younger than an
-- hour, whatever the age: a request may still be tried again.
CREATE OR REPLACE FUNCTION memory.purge_requests(age interval, most integer)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT tenant_id, request_id FROM memory.idempotency_keys
         WHERE create_time < now() - age AND create_time < now() - interval '1 hour'
         LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM memory.idempotency_keys USING old
         WHERE idempotency_keys.tenant_id = old.tenant_id AND idempotency_keys.request_id = old.request_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- Vectors made after the fact: for memories that were stored while no model answered, and for moves to another model.

-- A memory's content, as a worker embeds it. Its digest is compared when the vector comes: a memory that changed
-- meanwhile gets none that isn't its own.
CREATE OR REPLACE FUNCTION memory.content_digest(content text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(convert_to(content, 'UTF8'));
$$;

-- Places vectors of a model at memories whose content is still what was embedded; returns whose it is. `ids`, `digests`
-- and `vectors` run in parallel. The caller has set the tenant. Vectors that are there stay: they are of the same content.
CREATE OR REPLACE FUNCTION memory.place_vectors(
    tenant uuid, model smallint, ids uuid[], digests bytea[], vectors vector[]
) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    placed uuid[];
BEGIN
    PERFORM memory.lock_scopes_of(tenant, ids);
    WITH fitting AS MATERIALIZED (
        SELECT m.*, made.embedding
          FROM unnest(ids, digests, vectors) AS made (memory_id, digest, embedding)
         CROSS JOIN LATERAL (SELECT * FROM memory.memories m
                              WHERE m.tenant_id = tenant AND m.memory_id = made.memory_id
                                AND memory.content_digest(m.content) = made.digest LIMIT 1) m
    ), added AS (
        INSERT INTO memory.memory_vectors (tenant_id, memory_id, model_id, agent_id, user_id, type, embedding)
        SELECT tenant, memory_id, model, agent_id, user_id, type, embedding FROM fitting ORDER BY memory_id
        ON CONFLICT (tenant_id, memory_id, model_id) DO NOTHING
    )
    SELECT array_agg(memory_id) INTO placed FROM fitting;
    RETURN coalesce(placed, '{}');
END $$;

-- What is to be embedded of a tenant's memories that were picked, at most so many bytes (one in any case).
CREATE OR REPLACE FUNCTION memory.read_unembedded(tenant uuid, ids uuid[], most_bytes bigint)
RETURNS TABLE (memory_id uuid, content text, digest bytea) LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
        SELECT filled.memory_id, filled.content, memory.content_digest(filled.content)
          FROM (SELECT m.memory_id, m.content, sum(octet_length(m.content)) OVER (ORDER BY m.memory_id) AS filling
                  FROM memory.memories m
                 WHERE m.tenant_id = tenant AND m.memory_id = ANY (ids) AND m.model_id IS NULL) filled
         WHERE filled.filling <= greatest(most_bytes, octet_length(filled.content))
         ORDER BY 1;
END $$;

-- Gives memories that were stored without a vector theirs; returns how many got it.
CREATE OR REPLACE FUNCTION memory.place_unembedded(
    tenant uuid, model smallint, ids uuid[], digests bytea[], vectors vector[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    placed uuid[];
    count integer;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    placed := memory.place_vectors(tenant, model, ids, digests, vectors);
    -- Under the lock that place_vectors took, the choice doesn't change any more.
    PERFORM memory.require_model(tenant, model);
    UPDATE memory.memories SET model_id = model
     WHERE tenant_id = tenant AND memory_id = ANY (placed) AND model_id IS NULL;
    GET DIAGNOSTICS count = ROW_COUNT;
    RETURN count;
END $$;

-- Gives memories back that were picked and not tried: they are due again after a pause, and it was no attempt.
CREATE OR REPLACE FUNCTION memory.return_unembedded(tenant uuid, ids uuid[], pause interval)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE memory.unembedded_memories
       SET due_time = now() + pause, attempt_count = greatest(attempt_count - 1, 0)
     WHERE tenant_id = tenant AND memory_id = ANY (ids);
END $$;

-- A re-embedding as it is now, or no row; while it runs its memories are counted.
CREATE OR REPLACE FUNCTION memory.get_reembedding(tenant uuid, job uuid)
RETURNS TABLE (reembedding_id uuid, from_model text, to_model text, state text, memory_count bigint, done_count bigint,
               error text, create_time timestamptz, update_time timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
        SELECT r.reembedding_id, r.from_model, model.name, r.state,
               CASE WHEN r.state = 'running' THEN memory.count_memories(tenant) ELSE r.memory_count END,
               CASE WHEN r.state = 'running' THEN memory.count_vectors(tenant, r.to_model) ELSE r.done_count END,
               r.error, r.create_time, r.progress_time
          FROM memory.reembeddings r JOIN memory.embedding_models model ON model.model_id = r.to_model
         WHERE r.tenant_id = tenant AND r.reembedding_id = job;
END $$;

CREATE OR REPLACE FUNCTION memory.count_memories(tenant uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(memory_count), 0)::bigint FROM memory.scope_counts WHERE tenant_id = tenant;
$$;

CREATE OR REPLACE FUNCTION memory.count_vectors(tenant uuid, model smallint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM memory.memory_vectors WHERE tenant_id = tenant AND model_id = model;
$$;

-- Begins a move, unless one is under way; the caller has set the tenant.
CREATE OR REPLACE FUNCTION memory.begin_reembedding(
    tenant uuid, job uuid, from_name text, target smallint, asked_by text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    running uuid;
BEGIN
    PERFORM set_config('lock_timeout', '3s', true);
    PERFORM pg_advisory_xact_lock(memory.model_lock(tenant));
    SELECT reembedding_id INTO running FROM memory.reembeddings WHERE tenant_id = tenant AND state = 'running';
    IF FOUND THEN
        RAISE EXCEPTION 'REEMBEDDING_RUNNING' USING ERRCODE = 'MN412',
            DETAIL = 'The memories are being moved to another embedding model.',
            HINT = jsonb_build_object('reembedding_id', running)::text;
    END IF;
    INSERT INTO memory.reembeddings (tenant_id, reembedding_id, from_model, to_model, principal)
         VALUES (tenant, job, from_name, target, asked_by);
END $$;

-- Leases a move that nobody works at, of any tenant, for a while. The epoch is the lease's: who has another has lost it.
CREATE OR REPLACE FUNCTION memory.lease_reembedding(hold interval)
RETURNS TABLE (tenant_id uuid, reembedding_id uuid, epoch bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE memory.reembeddings r SET epoch = r.epoch + 1, lease_until = clock_timestamp() + hold
      FROM (SELECT due.tenant_id, due.reembedding_id FROM memory.reembeddings due
             WHERE due.state = 'running' AND due.lease_until <= clock_timestamp()
             ORDER BY due.lease_until LIMIT 1 FOR UPDATE SKIP LOCKED) picked
     WHERE r.tenant_id = picked.tenant_id AND r.reembedding_id = picked.reembedding_id
    RETURNING r.tenant_id, r.reembedding_id, r.epoch;
$$;

-- What a worker must know of the move that it leased; no row when it lost it.
CREATE OR REPLACE FUNCTION memory.read_reembedding(tenant uuid, job uuid, held bigint)
RETURNS TABLE (target text, principal text, failure_count integer, stuck interval) LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
        SELECT model.name, r.principal, r.failure_count, clock_timestamp() - r.progress_time
          FROM memory.reembeddings r JOIN memory.embedding_models model ON model.model_id = r.to_model
         WHERE r.tenant_id = tenant AND r.reembedding_id = job AND r.epoch = held AND r.state = 'running';
END $$;

-- The pass's next memories without the new vector, at most so many and so many bytes (one in any case).
CREATE OR REPLACE FUNCTION memory.pick_reembedding(tenant uuid, job uuid, held bigint, most integer, most_bytes bigint)
RETURNS TABLE (memory_id uuid, content text, digest bytea) LANGUAGE plpgsql STABLE AS $$
DECLARE
    move memory.reembeddings;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT * INTO move FROM memory.reembeddings r
     WHERE r.tenant_id = tenant AND r.reembedding_id = job AND r.epoch = held AND r.state = 'running';
    RETURN QUERY
        SELECT filled.memory_id, filled.content, memory.content_digest(filled.content)
          FROM (SELECT next.*, sum(octet_length(next.content)) OVER (ORDER BY next.memory_id) AS filling
                  FROM (SELECT m.memory_id, m.content FROM memory.memories m
                         WHERE m.tenant_id = tenant AND m.memory_id > move.after_id
                           AND NOT EXISTS (SELECT FROM memory.memory_vectors v
                                            WHERE v.tenant_id = tenant AND v.memory_id = m.memory_id
                                              AND v.model_id = move.to_model)
                         ORDER BY m.memory_id LIMIT most) next) filled
         WHERE filled.filling <= greatest(most_bytes, octet_length(filled.content))
         ORDER BY 1;
END $$;

-- Places a batch of new vectors and goes on behind it; false when the lease is lost. What changed meanwhile, a later pass
-- finds.
CREATE OR REPLACE FUNCTION memory.place_reembedding(
    tenant uuid, job uuid, held bigint, hold interval, ids uuid[], digests bytea[], vectors vector[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    target smallint;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE memory.reembeddings
       SET after_id = ids[cardinality(ids)], lease_until = clock_timestamp() + hold, progress_time = now(),
           failure_count = 0, error = ''
     WHERE tenant_id = tenant AND reembedding_id = job AND epoch = held AND state = 'running'
    RETURNING to_model INTO target;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM memory.place_vectors(tenant, target, ids, digests, vectors);
    RETURN true;
END $$;

-- Keeps writers out for a moment, so that the last memories without the new vector get it: they wait, searches go on. By
-- the database's clock, so that a worker that dies meanwhile keeps nobody out. False when the lease is lost.
CREATE OR REPLACE FUNCTION memory.close_reembedding(tenant uuid, job uuid, held bigint, span interval)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true), set_config('lock_timeout', '3s', true);
    UPDATE memory.reembeddings SET closing_until = clock_timestamp() + span
     WHERE tenant_id = tenant AND reembedding_id = job AND epoch = held AND state = 'running';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Those who write now are waited for; who comes after them sees that it is closed.
    PERFORM pg_advisory_xact_lock(memory.model_lock(tenant));
    RETURN true;
END $$;

-- Ends a pass. Where no memory lacks the new vector, the new model is the tenant's from this moment: checked while nobody
-- writes. Else another pass begins. Returns 'moved', 'again', or 'lost' when the lease is.
CREATE OR REPLACE FUNCTION memory.end_pass(tenant uuid, job uuid, held bigint, hold interval)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    target smallint;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true), set_config('lock_timeout', '3s', true);
    UPDATE memory.reembeddings
       SET after_id = '00000000-0000-0000-0000-000000000000', lease_until = clock_timestamp() + hold
     WHERE tenant_id = tenant AND reembedding_id = job AND epoch = held AND state = 'running'
    RETURNING to_model INTO target;
    IF NOT FOUND THEN
        RETURN 'lost';
    END IF;
    -- Without the lock first: writers shall not wait for a look that finds work.
    IF memory.lacks_vectors(tenant, target) THEN
        RETURN 'again';
    END IF;
    PERFORM pg_advisory_xact_lock(memory.model_lock(tenant));
    IF memory.lacks_vectors(tenant, target) THEN
        RETURN 'again';
    END IF;
    PERFORM memory.choose_model(tenant, target);
    -- As many vectors as memories: counting them would keep writers waiting.
    UPDATE memory.reembeddings
       SET state = 'completed', error = '', progress_time = now(), lease_until = '-infinity',
           memory_count = counted.memories, done_count = counted.memories
      FROM (SELECT memory.count_memories(tenant) AS memories) counted
     WHERE tenant_id = tenant AND reembedding_id = job;
    RETURN 'moved';
END $$;

-- Lets go of a move for a while, with what was in the way ('' when nothing was); the next one who leases it goes on.
CREATE OR REPLACE FUNCTION memory.defer_reembedding(tenant uuid, job uuid, held bigint, pause interval, fault text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE memory.reembeddings
       SET lease_until = clock_timestamp() + pause, closing_until = '-infinity', error = CASE WHEN fault = '' THEN error ELSE fault END,
           failure_count = failure_count + (fault <> '')::integer
     WHERE tenant_id = tenant AND reembedding_id = job AND epoch = held AND state = 'running';
END $$;

-- Gives a move up: the tenant's model stays what it is. Vectors made so far stay, and spare the next try its work.
CREATE OR REPLACE FUNCTION memory.fail_reembedding(tenant uuid, job uuid, held bigint, fault text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE memory.reembeddings r
       SET state = 'failed', error = fault, progress_time = now(), lease_until = '-infinity',
           memory_count = memory.count_memories(tenant), done_count = memory.count_vectors(tenant, r.to_model)
     WHERE r.tenant_id = tenant AND r.reembedding_id = job AND r.epoch = held AND r.state = 'running';
END $$;

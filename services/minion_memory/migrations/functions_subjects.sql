-- What ends: all of a user, when asked; and what was kept for as long as its kind is.

-- What is kept of an erased user: a digest that names nobody and is the same again.
CREATE OR REPLACE FUNCTION memory.subject_digest(tenant uuid, subject text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(convert_to(tenant::text || '/' || subject, 'UTF8'));
$$;

-- Erases at most so many memories of a user, and what hangs on them, with the extraction jobs; counts what went. The last
-- call, which finds fewer, takes the rest along: stored replies and the counts themselves.
CREATE OR REPLACE FUNCTION memory.erase_subject(tenant uuid, subject text, most integer)
RETURNS TABLE (
    memory_count bigint, vector_count bigint, revision_count bigint, extraction_job_count bigint,
    stored_reply_count bigint, erase_time timestamptz, done boolean
) LANGUAGE plpgsql AS $$
DECLARE
    agents uuid[];
    victims uuid[];
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    -- First of all, so that a job that comes between two batches finds it.
    INSERT INTO memory.erased_subjects (tenant_id, subject_digest, erase_time)
         VALUES (tenant, memory.subject_digest(tenant, subject), clock_timestamp())
    ON CONFLICT (tenant_id, subject_digest) DO UPDATE SET erase_time = excluded.erase_time;
    -- Whoever stores waits, and then begins anew. Of scopes that come after this look nothing is touched: their writers
    -- may wait for us.
    agents := ARRAY(SELECT scope.agent_id FROM memory.scope_counts scope
                     WHERE scope.tenant_id = tenant AND scope.user_id = subject);
    PERFORM memory.lock_scopes(tenant, agents, array_fill(subject, ARRAY[cardinality(agents)]));
    -- Jobs first: one that is about to write has done so before we look for memories, or finds itself gone and writes
    -- nothing. In the order in which jobs are made.
    DELETE FROM memory.watched_sessions w WHERE w.tenant_id = tenant AND w.user_id = subject;
    DELETE FROM memory.extraction_jobs j WHERE j.tenant_id = tenant AND j.user_id = subject;
    GET DIAGNOSTICS extraction_job_count = ROW_COUNT;
    victims := ARRAY(SELECT m.memory_id FROM memory.memories m
                      WHERE m.tenant_id = tenant AND m.user_id = subject AND m.agent_id = ANY (agents) LIMIT most);
    SELECT count(*) INTO vector_count FROM unnest(victims) AS victim (id)
     CROSS JOIN LATERAL (SELECT FROM memory.memory_vectors v
                          WHERE v.tenant_id = tenant AND v.memory_id = victim.id) placed;
    SELECT count(*) INTO revision_count FROM unnest(victims) AS victim (id)
     CROSS JOIN LATERAL (SELECT FROM memory.memory_revisions r
                          WHERE r.tenant_id = tenant AND r.memory_id = victim.id) kept;
    DELETE FROM memory.memories m USING unnest(victims) AS victim (id)
     WHERE m.tenant_id = tenant AND m.memory_id = victim.id;
    GET DIAGNOSTICS memory_count = ROW_COUNT;
    -- A job that we waited for may have written for an agent that had nothing of the user before: look once more.
    done := cardinality(victims) < most AND extraction_job_count = 0;
    stored_reply_count := 0;
    erase_time := now();
    IF done THEN
        DELETE FROM memory.idempotency_keys k WHERE k.tenant_id = tenant AND k.subject = erase_subject.subject;
        GET DIAGNOSTICS stored_reply_count = ROW_COUNT;
        PERFORM memory.forget_scopes(tenant, agents, subject);
    END IF;
    RETURN NEXT;
END $$;

-- Deletes the counts of a user that these agents have no memories of, which the service itself may not: they are its
-- writers' locks, and held by the caller. For the tenant in hand alone.
CREATE OR REPLACE FUNCTION memory.forget_scopes(tenant uuid, agents uuid[], subject text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM memory.scope_counts
     WHERE tenant_id = tenant AND tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid
       AND agent_id = ANY (agents) AND user_id = subject AND memory_count = 0;
$$;

-- The tenants that have memories of a type that last changed before a time; at most so many of the oldest such memories
-- are looked at. For the workers of all tenants: ids alone.
CREATE OR REPLACE FUNCTION memory.pick_outlived(kind text, before timestamptz, most integer)
RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT tenant_id FROM (
        SELECT tenant_id FROM memory.memories WHERE type = kind AND updated_at < before LIMIT most) outlived;
$$;

-- Deletes a tenant's memories of a type that last changed before a time, at most so many at once; returns how many went.
CREATE OR REPLACE FUNCTION memory.prune_outlived(tenant uuid, kind text, before timestamptz, most integer)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    victims uuid[];
    gone bigint;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    victims := ARRAY(SELECT memory_id FROM memory.memories
                      WHERE tenant_id = tenant AND type = kind AND updated_at < before LIMIT most);
    PERFORM memory.lock_scopes_of(tenant, victims);
    -- What was changed while we waited for the lock is kept.
    DELETE FROM memory.memories m USING unnest(victims) AS victim (id)
     WHERE m.tenant_id = tenant AND m.memory_id = victim.id AND m.type = kind AND m.updated_at < before;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

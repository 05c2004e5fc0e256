-- How memories are written: every writer stores by store_memories, changes by revise_memory, ends by end_memory. The
-- trigger keep_revision then keeps what was there before.

-- Stores a batch, all or none, and returns what became of each item, in their order; the first result when the request
-- was seen before.
--
-- `batch` is a JSON array of memory.store_item; `vectors` holds their vectors, in the same order, NULL where there is none
-- yet (then `model_id` is null too, and the memory is listed as unembedded). `vector_given` says that the caller made an
-- item's vector: one of the service's own making is not written again while content and model stay the same, since
-- providers round differently from call to call. Cause, reason and principal say what made the revision; an item may
-- have a reason of its own. The result holds ids, outcomes, numbers and times, no content: the rest of a stored memory is
-- what the request says.
--
-- Everything is looked up key by key (LATERAL with LIMIT, and a loop): joined freely, a batch is compared with all of the
-- tenant's memories by a plan that was made while they were few.
DROP FUNCTION IF EXISTS memory.store_memories(uuid, uuid, bytea, jsonb, vector[]);
CREATE OR REPLACE FUNCTION memory.store_memories(
    tenant uuid, request uuid, digest bytea, batch jsonb, vectors vector[],
    change_cause text DEFAULT 'stored', change_reason text DEFAULT '', change_principal text DEFAULT ''
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    results jsonb;
    outcomes text[];
    acts boolean[];
    says_it boolean[];
    stays boolean[];
    ill_timed integer;
    one memory.store_item;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    PERFORM memory.lock_scopes(tenant, array_agg(given.agent_id), array_agg(given.user_id))
       FROM jsonb_to_recordset(batch) AS given (agent_id uuid, user_id text);
    IF request IS NOT NULL THEN
        results := memory.recall_request(tenant, request, 'StoreMemories', digest);
        IF results IS NOT NULL THEN
            RETURN results;
        END IF;
    END IF;
    PERFORM memory.admit_vectors(tenant, array_agg(given.model_id))
       FROM jsonb_to_recordset(batch) AS given (model_id smallint);

    -- What is there, and what is to be: unset times go on from a memory that says the same, or begin now.
    WITH given AS MATERIALIZED (
        SELECT element, (ordinality)::integer AS position, item,
               (SELECT m FROM memory.memories m
                 WHERE m.tenant_id = tenant AND m.agent_id = (item).agent_id AND m.user_id = (item).user_id
                   AND m.key = (item).key LIMIT 1) AS known
          FROM jsonb_array_elements(batch) WITH ORDINALITY AS elements (element, ordinality)
         CROSS JOIN LATERAL jsonb_populate_record(NULL::memory.store_item, element) AS item
    ), compared AS MATERIALIZED (
        SELECT *, coalesce((known).content = (item).content, false) AS same_content,
               coalesce((known).content = (item).content
                        AND ((known).valid_until IS NULL OR (known).valid_until = (item).valid_until), false) AS goes_on,
               (SELECT v.type = (item).type
                       AND CASE WHEN (item).vector_given THEN v.embedding = vectors[position]
                                ELSE (known).content = (item).content END
                  FROM memory.memory_vectors v
                 WHERE v.tenant_id = tenant AND v.memory_id = (known).memory_id AND v.model_id = (known).model_id
                   AND (known).model_id = (item).model_id LIMIT 1) AS stays_in_place
          FROM given
    ), timed AS MATERIALIZED (
        SELECT *,
               coalesce((item).valid_from, CASE WHEN goes_on THEN (known).valid_from END, (item).occur_time, now())
                   AS valid_from,
               coalesce((item).occur_time, CASE WHEN same_content THEN (known).occur_time END, now()) AS occur_time,
               coalesce((item).superseded_by, CASE WHEN goes_on THEN (known).superseded_by END) AS superseded_by
          FROM compared
    ), judged AS MATERIALIZED (
        SELECT *, ((known).type, (known).content, (known).speaker, (known).importance, (known).confidence,
                   (known).trust, (known).labels, (known).metadata, (known).source_session,
                   (known).source_sequences, (known).source_quote, (known).valid_from, (known).valid_until,
                   (known).occur_time, (known).superseded_by)
                  IS NOT DISTINCT FROM
                  ((item).type, (item).content, (item).speaker, (item).importance, (item).confidence,
                   (item).trust, (item).labels, (item).metadata, (item).source_session,
                   (item).source_sequences, (item).source_quote, valid_from, (item).valid_until,
                   occur_time, superseded_by) AS says_the_same
          FROM timed
    )
    SELECT array_agg(CASE WHEN (known).memory_id IS NULL THEN 'created'
                          WHEN says_the_same AND (coalesce(stays_in_place, false) OR NOT (item).vector_given)
                          THEN 'unchanged' ELSE 'updated' END ORDER BY position),
           array_agg((known).memory_id IS NOT NULL
                     AND NOT (says_the_same AND (coalesce(stays_in_place, false) OR vectors[position] IS NULL))
                     ORDER BY position),
           array_agg(same_content ORDER BY position),
           array_agg(coalesce(stays_in_place, false) ORDER BY position),
           min(position) FILTER (WHERE (item).valid_until < valid_from),
           jsonb_agg(element || jsonb_build_object(
               'memory_id', coalesce((known).memory_id, (item).memory_id),
               'create_time', coalesce((known).create_time, (item).create_time, now()),
               'valid_from', valid_from, 'occur_time', occur_time, 'superseded_by', superseded_by) ORDER BY position)
      INTO outcomes, acts, says_it, stays, ill_timed, batch FROM judged;
    IF ill_timed IS NOT NULL THEN
        RAISE EXCEPTION 'ILL_TIMED' USING ERRCODE = 'MN400', DETAIL = 'A memory would end before it begins.',
            HINT = jsonb_build_object('position', ill_timed - 1)::text;
    END IF;

    WITH given AS MATERIALIZED (
        SELECT given.*, row_number() OVER () AS position
          FROM jsonb_populate_recordset(NULL::memory.store_item, batch) AS given
    ), created AS (
        INSERT INTO memory.memories (
            tenant_id, memory_id, agent_id, user_id, key, type, content, speaker, importance, confidence, trust,
            labels, metadata, source_session, source_sequences, source_quote, model_id, create_time,
            valid_from, valid_until, occur_time, superseded_by, cause, reason, principal)
        SELECT tenant, memory_id, agent_id, user_id, key, type, content, speaker, importance, confidence, trust,
               labels, metadata, source_session, source_sequences, source_quote, model_id, create_time,
               valid_from, valid_until, occur_time, superseded_by,
               change_cause, coalesce(reason, change_reason), change_principal
          FROM given WHERE outcomes[position] = 'created' ORDER BY position
    )
    INSERT INTO memory.memory_vectors (tenant_id, memory_id, model_id, agent_id, user_id, type, embedding)
    SELECT tenant, memory_id, model_id, agent_id, user_id, type, vectors[position]
      FROM given WHERE outcomes[position] = 'created' AND vectors[position] IS NOT NULL ORDER BY position;

    FOR position IN 1 .. cardinality(acts) LOOP
        CONTINUE WHEN NOT acts[position];
        one := jsonb_populate_record(NULL::memory.store_item, batch -> (position - 1));
        UPDATE memory.memories known
           SET type = one.type, content = one.content, speaker = one.speaker, importance = one.importance,
               confidence = one.confidence, trust = one.trust, labels = one.labels, metadata = one.metadata,
               source_session = one.source_session, source_sequences = one.source_sequences,
               source_quote = one.source_quote, valid_from = one.valid_from, valid_until = one.valid_until,
               occur_time = one.occur_time, superseded_by = one.superseded_by,
               cause = change_cause, reason = coalesce(one.reason, change_reason), principal = change_principal
         WHERE known.tenant_id = tenant AND known.memory_id = one.memory_id;
        PERFORM memory.place_vector(
            tenant, one.memory_id, one.model_id, CASE WHEN NOT stays[position] THEN vectors[position] END,
            says_it[position] OR stays[position]);
    END LOOP;

    SELECT jsonb_agg(jsonb_build_object(
               'memory_id', details.memory_id, 'outcome', outcomes[position], 'embedding_model', details.embedding_model,
               'create_time', details.create_time, 'update_time', details.update_time,
               'valid_from', details.valid_from, 'occur_time', details.occur_time,
               'superseded_by', details.superseded_by, 'revision', details.revision,
               'access_count', details.access_count, 'access_time', details.access_time) ORDER BY position)
      INTO results
      FROM jsonb_array_elements(batch) WITH ORDINALITY AS stored (element, position)
     CROSS JOIN LATERAL (SELECT * FROM memory.memory_details d
                          WHERE d.tenant_id = tenant AND d.memory_id = (element ->> 'memory_id')::uuid LIMIT 1) details;
    IF request IS NOT NULL THEN
        -- One user's batch is forgotten with the user; one of several holds ids alone.
        INSERT INTO memory.idempotency_keys (tenant_id, request_id, method, digest, subject, result)
        SELECT tenant, request, 'StoreMemories', store_memories.digest,
               CASE WHEN min(given.user_id) = max(given.user_id) THEN min(given.user_id) END, results
          FROM jsonb_to_recordset(batch) AS given (user_id text);
    END IF;
    RETURN results;
END $$;

-- Gives a memory that was just written its vector, in place of those of other models; with none, what it has stays while
-- its content does (`keeps`), or else goes. For writers that hold the scope's lock.
CREATE OR REPLACE FUNCTION memory.place_vector(
    tenant uuid, memory uuid, model smallint, placed vector, keeps boolean
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF placed IS NOT NULL THEN
        DELETE FROM memory.memory_vectors v
         WHERE v.tenant_id = tenant AND v.memory_id = memory AND v.model_id <> model;
        INSERT INTO memory.memory_vectors (tenant_id, memory_id, model_id, agent_id, user_id, type, embedding)
        SELECT m.tenant_id, m.memory_id, model, m.agent_id, m.user_id, m.type, placed
          FROM memory.memories m WHERE m.tenant_id = tenant AND m.memory_id = memory
        ON CONFLICT (tenant_id, memory_id, model_id)
        DO UPDATE SET type = excluded.type, embedding = excluded.embedding;
        UPDATE memory.memories m SET model_id = model
         WHERE m.tenant_id = tenant AND m.memory_id = memory AND m.model_id IS DISTINCT FROM model;
    ELSIF keeps THEN
        UPDATE memory.memory_vectors v SET type = m.type
          FROM memory.memories m
         WHERE m.tenant_id = tenant AND m.memory_id = memory
           AND v.tenant_id = tenant AND v.memory_id = memory AND v.type <> m.type;
    ELSE
        DELETE FROM memory.memory_vectors v WHERE v.tenant_id = tenant AND v.memory_id = memory;
        UPDATE memory.memories m SET model_id = NULL
         WHERE m.tenant_id = tenant AND m.memory_id = memory AND m.model_id IS NOT NULL;
    END IF;
END $$;

-- Changes a memory, which makes its next revision; returns it, no row when there is none. The one way for whoever changes
-- a memory that exists.
--
-- `changes` holds the fields that get another value, named as in memory.store_item: type, content, speaker, importance,
-- confidence, trust, labels, metadata, source_session, source_sequences, source_quote, valid_from, valid_until,
-- occur_time, superseded_by (a JSON null empties); what is so again has no successor. `placed` is the vector of a new content and `model` its model; with none, a memory
-- of the same content keeps its vector, and one of another is listed as unembedded. With `expected`, raises MN410
-- unless the memory is in that revision.
CREATE OR REPLACE FUNCTION memory.revise_memory(
    tenant uuid, memory uuid, expected bigint, changes jsonb, model smallint, placed vector,
    change_cause text, change_reason text, change_principal text
) RETURNS SETOF memory.memory_details LANGUAGE plpgsql AS $$
DECLARE
    known memory.memories;
    changed memory.store_item;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    PERFORM memory.lock_scope_of(tenant, memory);
    SELECT * INTO known FROM memory.memories WHERE tenant_id = tenant AND memory_id = memory;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF known.revision <> expected THEN
        RAISE EXCEPTION 'ETAG_MISMATCH' USING ERRCODE = 'MN410', DETAIL = 'The memory changed since it was read.',
            HINT = jsonb_build_object('memory_id', memory, 'etag', known.revision::text)::text;
    END IF;
    PERFORM memory.admit_vectors(tenant, ARRAY[model]);
    IF changes -> 'valid_until' = 'null' AND NOT changes ? 'superseded_by' THEN
        changes := changes || '{"superseded_by": null}';
    END IF;
    changed := jsonb_populate_record(NULL::memory.store_item, to_jsonb(known) || changes);
    IF changed.valid_until < changed.valid_from THEN
        RAISE EXCEPTION 'ILL_TIMED' USING ERRCODE = 'MN400', DETAIL = 'The memory would end before it begins.';
    END IF;
    UPDATE memory.memories m
       SET type = changed.type, content = changed.content, speaker = changed.speaker, importance = changed.importance,
           confidence = changed.confidence, trust = changed.trust, labels = changed.labels, metadata = changed.metadata,
           source_session = changed.source_session, source_sequences = changed.source_sequences,
           source_quote = changed.source_quote, valid_from = changed.valid_from, valid_until = changed.valid_until,
           occur_time = changed.occur_time, superseded_by = changed.superseded_by,
           cause = change_cause, reason = change_reason, principal = change_principal
     WHERE m.tenant_id = tenant AND m.memory_id = memory;
    PERFORM memory.place_vector(tenant, memory, model, placed, known.content = changed.content);
    RETURN QUERY SELECT * FROM memory.memory_details d WHERE d.tenant_id = tenant AND d.memory_id = memory;
END $$;

-- The result of a change that was made under this request: the memory as it was then. No row when the request is new,
-- or when the memory is gone.
CREATE OR REPLACE FUNCTION memory.recall_change(tenant uuid, request uuid, request_method text, digest bytea)
RETURNS SETOF memory.memory_details LANGUAGE plpgsql AS $$
DECLARE
    known jsonb;
    details memory.memory_details;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    known := memory.recall_request(tenant, request, request_method, digest);
    SELECT * INTO details FROM memory.get_revision(tenant, (known ->> 'memory_id')::uuid, (known ->> 'revision')::bigint);
    IF FOUND THEN
        -- What is no part of a state is as the first reply had it.
        RETURN NEXT jsonb_populate_record(details, known);
    END IF;
END $$;

-- Changes a memory as revise_memory does, once for each request.
CREATE OR REPLACE FUNCTION memory.change_memory(
    tenant uuid, request uuid, request_method text, digest bytea, memory uuid, expected bigint, changes jsonb,
    model smallint, placed vector, change_cause text, change_reason text, change_principal text
) RETURNS SETOF memory.memory_details LANGUAGE plpgsql AS $$
DECLARE
    details memory.memory_details;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    PERFORM memory.lock_scope_of(tenant, memory);
    IF request IS NOT NULL AND memory.recall_request(tenant, request, request_method, digest) IS NOT NULL THEN
        RETURN QUERY SELECT * FROM memory.recall_change(tenant, request, request_method, digest);
        RETURN;
    END IF;
    SELECT * INTO details FROM memory.revise_memory(
        tenant, memory, expected, changes, model, placed, change_cause, change_reason, change_principal);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF request IS NOT NULL THEN
        INSERT INTO memory.idempotency_keys (tenant_id, request_id, method, digest, subject, result)
             VALUES (tenant, request, request_method, change_memory.digest, details.user_id, jsonb_build_object(
                 'memory_id', memory, 'revision', details.revision, 'embedding_model', details.embedding_model,
                 'update_time', details.update_time,
                 'access_count', details.access_count, 'access_time', details.access_time));
    END IF;
    RETURN NEXT details;
END $$;

-- Ends a memory: it was so until `ended`, then `successor` took its place (or nothing did). False when there is none. One
-- that began later is so for no time at all; one that ended before keeps its end.
CREATE OR REPLACE FUNCTION memory.end_memory(
    tenant uuid, memory uuid, ended timestamptz, successor uuid,
    change_cause text, change_reason text, change_principal text
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    known memory.memories;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    PERFORM memory.lock_scope_of(tenant, memory);
    SELECT * INTO known FROM memory.memories WHERE tenant_id = tenant AND memory_id = memory;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE memory.memories m
       SET valid_until = least(greatest(ended, m.valid_from), m.valid_until), superseded_by = successor,
           cause = change_cause, reason = change_reason, principal = change_principal
     WHERE m.tenant_id = tenant AND m.memory_id = memory;
    RETURN true;
END $$;

-- Picks memories that have no vector and are due, of all tenants, for one that makes them one: each comes again after
-- 30 s, then twice as long each time, an hour at most, so that a picker that is killed loses nothing and a text that no
-- model takes holds nobody up. Ids alone; `attempt_count` is 1 the first time.
CREATE OR REPLACE FUNCTION memory.pick_unembedded(most integer)
RETURNS TABLE (tenant_id uuid, memory_id uuid, attempt_count integer)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH due AS (
        SELECT u.tenant_id, u.memory_id FROM memory.unembedded_memories u
         WHERE u.due_time <= now() ORDER BY u.due_time LIMIT most FOR UPDATE SKIP LOCKED
    )
    UPDATE memory.unembedded_memories u
       SET attempt_count = u.attempt_count + 1,
           due_time = now() + least(interval '30 s' * power(2, least(u.attempt_count, 10)), interval '1 h')
      FROM due WHERE u.tenant_id = due.tenant_id AND u.memory_id = due.memory_id
    RETURNING u.tenant_id, u.memory_id, u.attempt_count;
$$;

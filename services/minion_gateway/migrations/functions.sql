-- One function a transaction of the turn engine: one round trip, the tenant set and the fence checked inside.
--
-- The fence: a write names the epoch of its lease and the version that it saw. When another replica has taken the run
-- over, nothing is written and nothing returned: the caller is a ghost and stops.

-- Writes what a change brings beside the run's own row: steps that ended or begin, attempts that ended or begin,
-- charges, events, audit rows. Each is a JSON array of objects, or NULL.
CREATE OR REPLACE FUNCTION gateway.write_changes(
    tenant uuid, run uuid, ended json, begun json, attempts_ended json, attempts_begun json,
    charges json, happened json, audit json
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF ended IS NOT NULL THEN
        UPDATE gateway.run_steps s SET state = e.state, result = e.result, end_time = now()
          FROM json_to_recordset(ended) AS e(sequence integer, state text, result json)
         WHERE s.tenant_id = tenant AND s.run_id = run AND s.sequence = e.sequence;
    END IF;
    IF begun IS NOT NULL THEN
        INSERT INTO gateway.run_steps (tenant_id, run_id, sequence, kind, state, key, intent)
        SELECT tenant, run, b.sequence, b.kind, 'STARTED', b.key, b.intent
          FROM json_to_recordset(begun) AS b(sequence integer, kind text, key uuid, intent json);
    END IF;
    IF attempts_ended IS NOT NULL THEN
        UPDATE gateway.attempts a SET state = e.state, cost_nanos = e.cost_nanos, reason = e.reason, end_time = now()
          FROM json_to_recordset(attempts_ended)
               AS e(step_sequence integer, attempt integer, state text, cost_nanos bigint, reason text)
         WHERE a.tenant_id = tenant AND a.run_id = run AND a.step_sequence = e.step_sequence AND a.attempt = e.attempt;
    END IF;
    IF attempts_begun IS NOT NULL THEN
        INSERT INTO gateway.attempts
               (tenant_id, run_id, step_sequence, attempt, model, state, worst_case_nanos, maximum_input, maximum_output)
        SELECT tenant, run, b.step_sequence, b.attempt, b.model, 'STARTED', b.worst_case_nanos, b.maximum_input,
               b.maximum_output
          FROM json_to_recordset(attempts_begun)
               AS b(step_sequence integer, attempt integer, model text, worst_case_nanos bigint, maximum_input bigint,
                    maximum_output bigint)
        -- The same attempt again is one whose bound turned out too low before it was made.
        ON CONFLICT (tenant_id, run_id, step_sequence, attempt) DO UPDATE
           SET worst_case_nanos = excluded.worst_case_nanos, maximum_input = excluded.maximum_input;
        UPDATE gateway.run_steps s SET attempt = b.attempt
          FROM json_to_recordset(attempts_begun) AS b(step_sequence integer, attempt integer)
         WHERE b.attempt > 1 AND s.tenant_id = tenant AND s.run_id = run AND s.sequence = b.step_sequence;
    END IF;
    IF charges IS NOT NULL THEN
        INSERT INTO gateway.ledger
               (tenant_id, run_id, step_sequence, kind, session_id, agent_id, agent_revision, user_id, name,
                input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_nanos)
        SELECT tenant, run, c.step_sequence, c.kind, r.session_id, r.agent_id, r.agent_revision, r.user_id, c.name,
               c.input_tokens, c.output_tokens, c.cached_tokens, c.reasoning_tokens, c.cost_nanos
          FROM json_to_recordset(charges)
               AS c(step_sequence integer, kind text, name text, input_tokens bigint, output_tokens bigint,
                    cached_tokens bigint, reasoning_tokens bigint, cost_nanos bigint),
               gateway.runs r
         WHERE r.tenant_id = tenant AND r.run_id = run;
    END IF;
    IF happened IS NOT NULL THEN
        INSERT INTO gateway.run_events (tenant_id, run_id, sequence, kind, payload)
        SELECT tenant, run, h.sequence, h.kind, h.payload
          FROM json_to_recordset(happened) AS h(sequence bigint, kind text, payload json);
    END IF;
    IF audit IS NOT NULL THEN
        INSERT INTO gateway.outbox (tenant_id, activity_id, principal, payload)
        SELECT tenant, a.activity_id, a.principal, a.payload
          FROM json_to_recordset(audit) AS a(activity_id uuid, principal text, payload json);
    END IF;
END $$;

-- Accepts a run. `outcome`:
-- WORKING    accepted and leased to `replica`, its first steps and event written;
-- SUBMITTED  accepted, behind the session's active run;
-- REPLAYED   the request_id came before with the same request: `accepted_run` is that run;
-- REUSED     the request_id came before with another request;
-- BUSY       refused: `accepted_run` is the session's active run;
-- QUEUE_FULL refused: as many wait as may;
-- SNAPSHOT_MISSING  nothing was done: call again with the agent's snapshot.
CREATE OR REPLACE FUNCTION gateway.accept_run(
    tenant uuid, run uuid, session uuid, agent uuid, revision bigint, snapshot_digest bytea, new_snapshot json,
    subject text, caller text, request uuid, request_hash bytea, message text, caller_data jsonb, is_streamed boolean,
    may_queue boolean, queue_limit integer, trace text, span text, replica uuid, ttl interval,
    begun json, attempts_begun json,
    OUT outcome text, OUT accepted_run uuid, OUT accept_time timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    known gateway.runs;
    active uuid;
    first_event json;
    round integer := 0;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    accepted_run := run;
    accept_time := now();
    IF new_snapshot IS NOT NULL THEN
        INSERT INTO gateway.agent_snapshots (tenant_id, digest, snapshot) VALUES (tenant, snapshot_digest, new_snapshot)
        ON CONFLICT DO NOTHING;
    ELSIF NOT EXISTS (SELECT FROM gateway.agent_snapshots WHERE tenant_id = tenant AND digest = snapshot_digest) THEN
        outcome := 'SNAPSHOT_MISSING';
        RETURN;
    END IF;
    LOOP
        round := round + 1;
        IF round > 20 THEN
            RAISE EXCEPTION 'run % is in its own way', run;
        END IF;
        outcome := 'WORKING';
        INSERT INTO gateway.runs
               (tenant_id, run_id, session_id, agent_id, agent_revision, agent_digest, user_id, principal, request_id,
                request_digest, state, input, metadata, streamed, step_count, last_event_sequence, epoch, owner,
                lease_until, trace_id, span_id, start_time)
        VALUES (tenant, run, session, agent, revision, snapshot_digest, subject, caller, request,
                request_hash, outcome, message, caller_data, is_streamed, json_array_length(begun), 1, 1, replica,
                now() + ttl, trace, span, now())
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        IF request IS NOT NULL THEN
            SELECT * INTO known FROM gateway.runs WHERE tenant_id = tenant AND request_id = request;
            IF FOUND THEN
                accepted_run := known.run_id;
                outcome := CASE WHEN known.request_digest = request_hash THEN 'REPLAYED' ELSE 'REUSED' END;
                RETURN;
            END IF;
        END IF;
        -- The lock makes us and the active run's end take turns: it sees us queued, or we see it gone.
        SELECT run_id INTO active FROM gateway.runs
         WHERE tenant_id = tenant AND session_id = session AND parent_run_id IS NULL
           AND state IN ('WORKING', 'INPUT_REQUIRED', 'AUTH_REQUIRED')
           FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        IF NOT may_queue THEN
            accepted_run := active;
            outcome := 'BUSY';
            RETURN;
        END IF;
        IF (SELECT count(*) FROM gateway.runs
             WHERE tenant_id = tenant AND session_id = session AND state = 'SUBMITTED') >= queue_limit THEN
            outcome := 'QUEUE_FULL';
            RETURN;
        END IF;
        outcome := 'SUBMITTED';
        INSERT INTO gateway.runs
               (tenant_id, run_id, session_id, agent_id, agent_revision, agent_digest, user_id, principal, request_id,
                request_digest, state, input, metadata, streamed, step_count, last_event_sequence, epoch, trace_id,
                span_id)
        VALUES (tenant, run, session, agent, revision, snapshot_digest, subject, caller, request,
                request_hash, outcome, message, caller_data, is_streamed, json_array_length(begun), 1, 0, trace, span)
        ON CONFLICT DO NOTHING;
        -- Only the same request, made twice at once, is in the way: the next round finds it.
        EXIT WHEN FOUND;
    END LOOP;
    first_event := json_build_array(json_build_object(
        'sequence', 1, 'kind', 'state_changed', 'payload', ('{"state":"' || outcome || '"}')::json));
    PERFORM gateway.write_changes(tenant, run, NULL, begun, NULL, attempts_begun, NULL, first_event, NULL);
END $$;

-- Moves a run on: results of steps, what they cost, and the next intents, in one transaction. Returns when; NULL to a
-- ghost. `last_event` is `first_event - 1` when nothing happened.
CREATE OR REPLACE FUNCTION gateway.advance_run(
    tenant uuid, run uuid, lease_epoch bigint, seen_version bigint, first_event bigint, last_event bigint,
    steps integer, tokens bigint[], nanos bigint, unpriced integer,
    ended json, begun json, attempts_ended json, attempts_begun json, charges json, happened json, audit json
) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE gateway.runs
       SET version = version + 1, last_event_sequence = last_event, step_count = steps, input_tokens = tokens[1],
           output_tokens = tokens[2], cached_tokens = tokens[3], reasoning_tokens = tokens[4], cost_nanos = nanos,
           unpriced_steps = unpriced
     WHERE tenant_id = tenant AND run_id = run AND epoch = lease_epoch AND version = seen_version
       AND state = 'WORKING' AND last_event_sequence = first_event - 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM gateway.write_changes(tenant, run, ended, begun, attempts_ended, attempts_begun, charges, happened, audit);
    RETURN now();
END $$;

-- Moves a run out of WORKING: COMPLETED or FAILED for good, INPUT_REQUIRED until a person decides. When it ends, the
-- session's next queued run starts in the same transaction, leased to `replica` (to nobody when that is NULL): its id
-- is `next_run`. It is the one that was accepted first by the database's clock: ids are made by replicas' own.
-- No row to a ghost.
CREATE OR REPLACE FUNCTION gateway.end_run(
    tenant uuid, run uuid, lease_epoch bigint, seen_version bigint, first_event bigint, last_event bigint,
    steps integer, tokens bigint[], nanos bigint, unpriced integer,
    ended json, begun json, attempts_ended json, attempts_begun json, charges json, happened json, audit json,
    new_state text, final_answer text, failure_reason text, failure_message text, replica uuid, ttl interval
) RETURNS TABLE (change_time timestamptz, next_run uuid) LANGUAGE plpgsql AS $$
DECLARE
    session uuid;
    handed gateway.runs;
    is_final boolean := new_state IN ('COMPLETED', 'FAILED', 'CANCELED');
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE gateway.runs
       SET version = version + 1, last_event_sequence = last_event, step_count = steps, input_tokens = tokens[1],
           output_tokens = tokens[2], cached_tokens = tokens[3], reasoning_tokens = tokens[4], cost_nanos = nanos,
           unpriced_steps = unpriced, state = new_state, answer = final_answer, error_reason = failure_reason,
           error_message = failure_message, owner = NULL, lease_until = NULL,
           end_time = CASE WHEN is_final THEN now() END
     WHERE tenant_id = tenant AND run_id = run AND epoch = lease_epoch AND version = seen_version
       AND state = 'WORKING' AND last_event_sequence = first_event - 1
    RETURNING CASE WHEN parent_run_id IS NULL THEN session_id END INTO session;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM gateway.write_changes(tenant, run, ended, begun, attempts_ended, attempts_begun, charges, happened, audit);
    -- The one thing that a run begins with its end.
    IF begun IS NOT NULL AND session IS NOT NULL THEN
        PERFORM gateway.ask_summary(tenant, run, session, begun);
    END IF;
    change_time := now();
    IF is_final AND session IS NOT NULL THEN
        UPDATE gateway.runs r
           SET state = 'WORKING', epoch = r.epoch + CASE WHEN replica IS NULL THEN 0 ELSE 1 END, owner = replica,
               lease_until = CASE WHEN replica IS NULL THEN now() ELSE now() + ttl END, start_time = now(),
               last_event_sequence = r.last_event_sequence + 1
         WHERE r.tenant_id = tenant AND r.run_id = (
               SELECT q.run_id FROM gateway.runs q
                WHERE q.tenant_id = tenant AND q.session_id = session AND q.state = 'SUBMITTED'
                ORDER BY q.create_time, q.run_id LIMIT 1)
        RETURNING r.* INTO handed;
        IF FOUND THEN
            INSERT INTO gateway.run_events (tenant_id, run_id, sequence, kind, payload)
            VALUES (tenant, handed.run_id, handed.last_event_sequence, 'state_changed', '{"state":"WORKING"}');
            next_run := handed.run_id;
        END IF;
    END IF;
    RETURN NEXT;
END $$;

-- Appends one batch of events of several runs and tenants; returns the runs whose fence held, with the events' time.
-- Runs are taken in the order of their ids, as by `renew_leases`, so that neither waits for the other in a circle.
CREATE OR REPLACE FUNCTION gateway.append_events(batch json)
RETURNS TABLE (appended_run uuid, append_time timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    part record;
BEGIN
    append_time := now();
    FOR part IN
        SELECT * FROM json_to_recordset(batch)
               AS b(tenant uuid, run uuid, lease_epoch bigint, first_event bigint, last_event bigint, happened json)
         ORDER BY tenant, run
    LOOP
        PERFORM set_config('minion.tenant', part.tenant::text, true);
        UPDATE gateway.runs SET last_event_sequence = part.last_event
         WHERE tenant_id = part.tenant AND run_id = part.run AND epoch = part.lease_epoch AND state = 'WORKING'
           AND last_event_sequence = part.first_event - 1;
        IF FOUND THEN
            INSERT INTO gateway.run_events (tenant_id, run_id, sequence, kind, payload)
            SELECT part.tenant, part.run, h.sequence, h.kind, h.payload
              FROM json_to_recordset(part.happened) AS h(sequence bigint, kind text, payload json);
            appended_run := part.run;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- A run, as its readers see it.
CREATE OR REPLACE FUNCTION gateway.read_run(tenant uuid, run uuid)
RETURNS SETOF gateway.runs LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT * FROM gateway.runs WHERE tenant_id = tenant AND run_id = run;
END $$;

-- Events of a run after a sequence, oldest first.
CREATE OR REPLACE FUNCTION gateway.read_events(tenant uuid, run uuid, after bigint, most integer)
RETURNS TABLE (sequence bigint, kind text, payload json, create_time timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
    SELECT e.sequence, e.kind, e.payload, e.create_time FROM gateway.run_events e
     WHERE e.tenant_id = tenant AND e.run_id = run AND e.sequence > after
     ORDER BY e.sequence LIMIT most;
END $$;

-- Leases runs whose lease ran out, of any tenant, to a replica. A run that nobody released counts one recovery more.
CREATE OR REPLACE FUNCTION gateway.lease_runs(replica uuid, ttl interval, most integer)
RETURNS TABLE (tenant_id uuid, run_id uuid) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE gateway.runs r
       SET epoch = r.epoch + 1, owner = replica, lease_until = now() + ttl,
           recovery_count = r.recovery_count + CASE WHEN r.owner IS NULL THEN 0 ELSE 1 END,
           start_time = coalesce(r.start_time, now())
      FROM (SELECT due.tenant_id, due.run_id FROM gateway.runs due
             WHERE due.state = 'WORKING' AND due.lease_until < now()
             ORDER BY due.lease_until LIMIT most FOR UPDATE SKIP LOCKED) picked
     WHERE r.tenant_id = picked.tenant_id AND r.run_id = picked.run_id
    RETURNING r.tenant_id, r.run_id;
$$;

-- How many runs wait for a replica, of all tenants, and for how many seconds the oldest has.
CREATE OR REPLACE FUNCTION gateway.runs_waiting()
RETURNS TABLE (waiting bigint, seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*), coalesce(extract(epoch FROM now() - min(r.lease_until)), 0)::double precision
      FROM gateway.runs r WHERE r.state = 'WORKING' AND r.lease_until < now();
$$;

-- Renews the leases that a replica holds; those not returned are lost.
CREATE OR REPLACE FUNCTION gateway.renew_leases(
    replica uuid, ttl interval, tenants uuid[], runs uuid[], epochs bigint[]
) RETURNS TABLE (tenant_id uuid, run_id uuid) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH mine AS MATERIALIZED (
        SELECT r.tenant_id, r.run_id
          FROM unnest(tenants, runs, epochs) AS held(tenant_id, run_id, epoch)
          JOIN gateway.runs r ON r.tenant_id = held.tenant_id AND r.run_id = held.run_id AND r.epoch = held.epoch
         WHERE r.state = 'WORKING' AND r.owner = replica
         ORDER BY r.tenant_id, r.run_id FOR UPDATE OF r
    )
    UPDATE gateway.runs r SET lease_until = now() + ttl
      FROM mine WHERE r.tenant_id = mine.tenant_id AND r.run_id = mine.run_id
    RETURNING r.tenant_id, r.run_id;
$$;

-- Gives a replica's leases back, so that others take the runs over at once; returns how many there were.
CREATE OR REPLACE FUNCTION gateway.release_leases(replica uuid)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH mine AS MATERIALIZED (
        SELECT r.tenant_id, r.run_id FROM gateway.runs r
         WHERE r.state = 'WORKING' AND r.owner = replica
         ORDER BY r.tenant_id, r.run_id FOR UPDATE
    ), released AS (
        UPDATE gateway.runs r SET owner = NULL, lease_until = now()
          FROM mine WHERE r.tenant_id = mine.tenant_id AND r.run_id = mine.run_id
        RETURNING 1
    )
    SELECT count(*) FROM released;
$$;

-- Records audit rows outside any run.
CREATE OR REPLACE FUNCTION gateway.record_audit(tenant uuid, audit json)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    PERFORM gateway.write_changes(tenant, NULL, NULL, NULL, NULL, NULL, NULL, NULL, audit);
END $$;

-- Takes audit rows of any tenant that are due, oldest first, and keeps other replicas off them for a while.
CREATE OR REPLACE FUNCTION gateway.claim_outbox(most integer, hold interval)
RETURNS TABLE (tenant_id uuid, activity_id uuid)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE gateway.outbox o SET due_time = now() + hold
      FROM (SELECT due.tenant_id, due.activity_id FROM gateway.outbox due
             WHERE due.due_time <= now()
             ORDER BY due.due_time LIMIT most FOR UPDATE SKIP LOCKED) picked
     WHERE o.tenant_id = picked.tenant_id AND o.activity_id = picked.activity_id
    RETURNING o.tenant_id, o.activity_id;
$$;

-- Reads audit rows of a tenant.
CREATE OR REPLACE FUNCTION gateway.read_outbox(tenant uuid, ids uuid[])
RETURNS TABLE (activity_id uuid, principal text, payload json) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT o.activity_id, o.principal, o.payload FROM gateway.outbox o
                  WHERE o.tenant_id = tenant AND o.activity_id = ANY (ids) ORDER BY o.activity_id;
END $$;

-- Deletes audit rows of a tenant that were acknowledged.
CREATE OR REPLACE FUNCTION gateway.delete_outbox(tenant uuid, ids uuid[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    DELETE FROM gateway.outbox WHERE tenant_id = tenant AND activity_id = ANY (ids);
END $$;

-- Puts audit rows of a tenant off; `refused` says that they were refused for what they are.
CREATE OR REPLACE FUNCTION gateway.defer_outbox(tenant uuid, ids uuid[], pause interval, refused boolean)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE gateway.outbox SET due_time = now() + pause, refusals = refusals + CASE WHEN refused THEN 1 ELSE 0 END
     WHERE tenant_id = tenant AND activity_id = ANY (ids);
END $$;

-- How many audit rows wait, of all tenants, and for how many seconds the oldest has.
CREATE OR REPLACE FUNCTION gateway.outbox_lag()
RETURNS TABLE (waiting bigint, seconds double precision)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*), coalesce(extract(epoch FROM now() - min(create_time)), 0)::double precision FROM gateway.outbox;
$$;

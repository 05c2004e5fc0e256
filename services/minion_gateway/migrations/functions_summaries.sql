-- Summaries after a turn. The fence is the job's: a write names the epoch of its lease; when another replica has taken
-- the job over, or it is gone, nothing is written and nothing returned.

-- Writes down that a run which has just ended asks for a summary: its step of that kind, begun in the same transaction.
-- While another job of the session is under way the step is SKIPPED: the session's next turn looks again.
CREATE OR REPLACE FUNCTION gateway.ask_summary(tenant uuid, run uuid, session uuid, begun json)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    step integer;
BEGIN
    SELECT b.sequence INTO step FROM json_to_recordset(begun) AS b(sequence integer, kind text)
     WHERE b.kind = 'summary';
    IF step IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO gateway.summary_jobs (tenant_id, session_id, run_id, step_sequence) VALUES (tenant, session, run, step)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        UPDATE gateway.run_steps SET state = 'SKIPPED', end_time = now()
         WHERE tenant_id = tenant AND run_id = run AND sequence = step;
    END IF;
END $$;

-- Leases jobs that nobody works on, of any tenant, to a replica. One whose replica died counts one recovery more.
CREATE OR REPLACE FUNCTION gateway.lease_summaries(replica uuid, ttl interval, most integer)
RETURNS TABLE (tenant_id uuid, session_id uuid)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE gateway.summary_jobs j
       SET epoch = j.epoch + 1, owner = replica, lease_until = now() + ttl,
           recovery_count = j.recovery_count + CASE WHEN j.owner IS NULL THEN 0 ELSE 1 END
      FROM (SELECT due.tenant_id, due.session_id FROM gateway.summary_jobs due
             WHERE due.lease_until <= now()
             ORDER BY due.lease_until LIMIT most FOR UPDATE SKIP LOCKED) picked
     WHERE j.tenant_id = picked.tenant_id AND j.session_id = picked.session_id
    RETURNING j.tenant_id, j.session_id;
$$;

-- Renews the leases that a replica holds; those not returned are lost.
CREATE OR REPLACE FUNCTION gateway.renew_summaries(
    replica uuid, ttl interval, tenants uuid[], sessions uuid[], epochs bigint[]
) RETURNS TABLE (tenant_id uuid, session_id uuid)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH mine AS MATERIALIZED (
        SELECT j.tenant_id, j.session_id
          FROM unnest(tenants, sessions, epochs) AS held(tenant_id, session_id, epoch)
          JOIN gateway.summary_jobs j
            ON j.tenant_id = held.tenant_id AND j.session_id = held.session_id AND j.epoch = held.epoch
         WHERE j.owner = replica
         ORDER BY j.tenant_id, j.session_id FOR UPDATE OF j
    )
    UPDATE gateway.summary_jobs j SET lease_until = now() + ttl
      FROM mine WHERE j.tenant_id = mine.tenant_id AND j.session_id = mine.session_id
    RETURNING j.tenant_id, j.session_id;
$$;

-- Gives a replica's jobs back, so that others take them over at once; returns how many there were.
CREATE OR REPLACE FUNCTION gateway.release_summaries(replica uuid)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH released AS (
        UPDATE gateway.summary_jobs j SET owner = NULL, lease_until = now() WHERE j.owner = replica RETURNING 1
    )
    SELECT count(*) FROM released;
$$;

-- A job that a replica has leased: its run, its agent as it was then, and its step. `asked` says that a model may have
-- been asked by a replica that died.
CREATE OR REPLACE FUNCTION gateway.read_summary_job(tenant uuid, session uuid, replica uuid)
RETURNS TABLE (
    run_id uuid, step_sequence integer, epoch bigint, recovery_count integer, deferral_count integer, agent_id uuid,
    agent_revision bigint, user_id text, principal text, trace_id text, span_id text, snapshot json, attempt integer,
    result json, asked boolean
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
    SELECT j.run_id, j.step_sequence, j.epoch, j.recovery_count, j.deferral_count, r.agent_id, r.agent_revision,
           r.user_id, r.principal, r.trace_id, r.span_id, a.snapshot, s.attempt, s.result,
           EXISTS (SELECT FROM gateway.attempts t
                    WHERE t.tenant_id = tenant AND t.run_id = j.run_id AND t.step_sequence = j.step_sequence
                      AND t.attempt = s.attempt AND t.state = 'STARTED')
      FROM gateway.summary_jobs j
      JOIN gateway.runs r ON r.tenant_id = tenant AND r.run_id = j.run_id
      JOIN gateway.agent_snapshots a ON a.tenant_id = tenant AND a.digest = r.agent_digest
      JOIN gateway.run_steps s ON s.tenant_id = tenant AND s.run_id = j.run_id AND s.sequence = j.step_sequence
     WHERE j.tenant_id = tenant AND j.session_id = session AND j.owner = replica;
END $$;

-- Moves a job on by one change; false to a ghost. `next_step` is the step that it goes on with, NULL for the same one;
-- with `is_over` there is none, and the job goes.
CREATE OR REPLACE FUNCTION gateway.advance_summary(
    tenant uuid, session uuid, lease_epoch bigint, next_step integer, is_over boolean,
    ended json, begun json, attempts_ended json, attempts_begun json, charges json, audit json
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    run uuid;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE gateway.summary_jobs
       SET step_sequence = coalesce(next_step, step_sequence), deferral_count = 0
     WHERE tenant_id = tenant AND session_id = session AND epoch = lease_epoch AND owner IS NOT NULL
    RETURNING run_id INTO run;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM gateway.write_changes(tenant, run, ended, begun, attempts_ended, attempts_begun, charges, NULL, audit);
    IF is_over THEN
        DELETE FROM gateway.summary_jobs WHERE tenant_id = tenant AND session_id = session;
    END IF;
    RETURN true;
END $$;

-- Puts a job off: what it needs is away for now.
CREATE OR REPLACE FUNCTION gateway.defer_summary(tenant uuid, session uuid, lease_epoch bigint, pause interval)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE gateway.summary_jobs
       SET owner = NULL, lease_until = now() + pause, deferral_count = deferral_count + 1
     WHERE tenant_id = tenant AND session_id = session AND epoch = lease_epoch;
END $$;

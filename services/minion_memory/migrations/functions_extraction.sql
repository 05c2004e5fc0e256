-- Sessions that are followed, and the jobs that draw from them.
--
-- What concerns one tenant sets it and runs as the caller, row-level security behind it. What picks work of all tenants
-- runs as the owner and returns ids alone.

-- Takes or keeps the reading of the session service's feed for a replica; gives the cursor to read from, NULL while
-- another replica reads.
CREATE OR REPLACE FUNCTION memory.hold_session_feed(replica uuid, ttl interval) RETURNS text LANGUAGE sql AS $$
    UPDATE memory.session_feed f SET owner = replica, lease_until = now() + ttl
     WHERE f.feed = 'sessions' AND (f.owner = replica OR f.owner IS NULL OR f.lease_until < now())
    RETURNING f.cursor;
$$;

-- Moves the feed's cursor on; false when another replica reads by now.
CREATE OR REPLACE FUNCTION memory.advance_session_feed(replica uuid, ttl interval, place text)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE memory.session_feed f SET cursor = place, lease_until = now() + ttl, update_time = now()
     WHERE f.feed = 'sessions' AND f.owner = replica AND f.lease_until > now();
    RETURN FOUND;
END $$;

-- Gives the feed back, so that another replica goes on at once.
CREATE OR REPLACE FUNCTION memory.release_session_feed(replica uuid) RETURNS void LANGUAGE sql AS $$
    UPDATE memory.session_feed f SET owner = NULL, lease_until = NULL WHERE f.feed = 'sessions' AND f.owner = replica;
$$;

-- Notes a change of a session: it is to be looked at now. One that is told twice is noted twice, which does no harm.
CREATE OR REPLACE FUNCTION memory.note_session(tenant uuid, session uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    INSERT INTO memory.watched_sessions AS w (tenant_id, session_id, due_time) VALUES (tenant, session, now())
    ON CONFLICT (tenant_id, session_id) DO UPDATE SET due_time = now(), version = w.version + 1;
END $$;

-- Forgets a session that is gone. Its jobs stay, and fail when they find it gone.
CREATE OR REPLACE FUNCTION memory.forget_session(tenant uuid, session uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    DELETE FROM memory.watched_sessions WHERE tenant_id = tenant AND session_id = session;
END $$;

-- Tenants whose sessions are followed, for listing anew what the feed has lost.
CREATE OR REPLACE FUNCTION memory.watching_tenants() RETURNS SETOF uuid
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT tenant_id FROM memory.watched_sessions;
$$;

-- Takes sessions that are due, of any tenant, and keeps other replicas off them for a while; a look that fails is made
-- again then.
CREATE OR REPLACE FUNCTION memory.pick_watched_sessions(most integer, hold interval)
RETURNS TABLE (tenant_id uuid, session_id uuid, version bigint) LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE memory.watched_sessions w SET due_time = now() + hold
      FROM (SELECT due.tenant_id, due.session_id FROM memory.watched_sessions due
             WHERE due.due_time <= now() ORDER BY due.due_time LIMIT most FOR UPDATE SKIP LOCKED) picked
     WHERE w.tenant_id = picked.tenant_id AND w.session_id = picked.session_id
    RETURNING w.tenant_id, w.session_id, w.version;
$$;

-- Makes jobs of what an extractor hasn't seen of a session, each of at most so many messages; says how many. The
-- session's row is locked, so that two that look at once hand nothing out twice.
CREATE OR REPLACE FUNCTION memory.schedule_extraction(
    tenant uuid, session uuid, agent uuid, subject text, by_extractor text, cause text, origin text,
    begins_after bigint, upto bigint, most bigint, job_ids uuid[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
    next_last bigint;
    made integer := 0;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT greatest(coalesce((w.drawn ->> by_extractor)::bigint, 0), begins_after) INTO done
      FROM memory.watched_sessions w WHERE w.tenant_id = tenant AND w.session_id = session FOR UPDATE;
    IF NOT FOUND THEN
        -- Erased, or deleted, while somebody looked.
        RETURN 0;
    END IF;
    WHILE done < upto AND made < cardinality(job_ids) LOOP
        next_last := least(done + most, upto);
        made := made + 1;
        INSERT INTO memory.extraction_jobs (
            tenant_id, job_id, session_id, agent_id, user_id, extractor, trigger, principal, first_sequence, last_sequence)
        VALUES (tenant, job_ids[made], session, agent, subject, by_extractor, cause, origin, done + 1, next_last)
        ON CONFLICT (tenant_id, session_id, extractor, first_sequence, last_sequence) DO NOTHING;
        done := next_last;
    END LOOP;
    UPDATE memory.watched_sessions w
       SET drawn = w.drawn || jsonb_build_object(by_extractor, done), user_id = subject
     WHERE w.tenant_id = tenant AND w.session_id = session;
    RETURN made;
END $$;

-- Ends a look at a session: it is due again at `next_time`, never where that is NULL; a change that was told meanwhile
-- keeps its own time.
CREATE OR REPLACE FUNCTION memory.settle_session(tenant uuid, session uuid, seen bigint, subject text, next_time timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE memory.watched_sessions w
       SET user_id = coalesce(subject, w.user_id), due_time = next_time
     WHERE w.tenant_id = tenant AND w.session_id = session AND w.version = seen;
END $$;

-- Asks for a stretch of a session, as ExtractMemories does: gives the job and whether it was made for this request
-- (`fresh`), and on a repeat the first result. `first` 0 is what the extractor hasn't seen, `last` the last message of the
-- stretch. A stretch that failed is tried again; one that was drawn is found. `failed_tries` is how often it has failed so
-- far.
CREATE OR REPLACE FUNCTION memory.request_extraction(
    tenant uuid, request uuid, digest bytea, new_job uuid, session uuid, agent uuid, subject text, by_extractor text,
    origin text, first bigint, last bigint, begins_after bigint, most bigint
) RETURNS TABLE (job_id uuid, fresh boolean, failed_tries integer) LANGUAGE plpgsql AS $$
DECLARE
    known jsonb;
    done bigint;
    known_job memory.extraction_jobs;
    begins bigint := first;
    ends bigint := last;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    INSERT INTO memory.watched_sessions (tenant_id, session_id, user_id) VALUES (tenant, session, subject)
    ON CONFLICT DO NOTHING;
    SELECT greatest(coalesce((w.drawn ->> by_extractor)::bigint, 0), begins_after) INTO done
      FROM memory.watched_sessions w WHERE w.tenant_id = tenant AND w.session_id = session FOR UPDATE;
    IF request IS NOT NULL THEN
        known := memory.recall_request(tenant, request, 'ExtractMemories', digest);
        IF known IS NOT NULL THEN
            job_id := (known ->> 'job_id')::uuid;
            fresh := (known ->> 'fresh')::boolean;
            SELECT j.attempt_count - (j.state = 'running')::integer INTO failed_tries
              FROM memory.extraction_jobs j WHERE j.tenant_id = tenant AND j.job_id = request_extraction.job_id;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    IF first = 0 THEN
        begins := done + 1;
        ends := least(last, done + most);
    END IF;
    fresh := false;
    failed_tries := 0;
    IF begins > ends THEN
        -- Nothing that it hasn't seen: what it drew last says so.
        SELECT * INTO known_job FROM memory.extraction_jobs j
         WHERE j.tenant_id = tenant AND j.session_id = session AND j.extractor = by_extractor
         ORDER BY j.last_sequence DESC, j.first_sequence DESC LIMIT 1;
        ends := begins - 1;
    ELSE
        SELECT * INTO known_job FROM memory.extraction_jobs j
         WHERE j.tenant_id = tenant AND j.session_id = session AND j.extractor = by_extractor
           AND j.first_sequence = begins AND j.last_sequence = ends;
    END IF;
    IF known_job.job_id IS NULL THEN
        fresh := true;
        INSERT INTO memory.extraction_jobs (
            tenant_id, job_id, session_id, agent_id, user_id, extractor, trigger, principal, first_sequence, last_sequence,
            state)
        VALUES (tenant, new_job, session, agent, subject, by_extractor, 'requested', origin, begins, ends,
                CASE WHEN begins > ends THEN 'done' ELSE 'pending' END);
        job_id := new_job;
        -- What comes next is counted on from here, unless that would leave a gap.
        IF begins <= done + 1 AND ends > done THEN
            UPDATE memory.watched_sessions w SET drawn = w.drawn || jsonb_build_object(by_extractor, ends)
             WHERE w.tenant_id = tenant AND w.session_id = session;
        END IF;
    ELSE
        job_id := known_job.job_id;
        IF known_job.state = 'failed' THEN
            fresh := true;
            PERFORM memory.restart_job(tenant, known_job.job_id);
        ELSIF known_job.state IN ('pending', 'running') THEN
            -- Whoever asks while it is under way hears what it comes to.
            fresh := true;
            failed_tries := known_job.attempt_count - (known_job.state = 'running')::integer;
        END IF;
    END IF;
    IF request IS NOT NULL THEN
        INSERT INTO memory.idempotency_keys (tenant_id, request_id, method, digest, result, subject)
             VALUES (tenant, request, 'ExtractMemories', request_extraction.digest,
                     jsonb_build_object('job_id', job_id, 'fresh', fresh), request_extraction.subject);
    END IF;
    RETURN NEXT;
END $$;

-- Puts a job back to its beginning. For callers that have set the tenant and know its state.
CREATE OR REPLACE FUNCTION memory.restart_job(tenant uuid, job uuid) RETURNS void LANGUAGE sql AS $$
    UPDATE memory.extraction_jobs
       SET state = 'pending', attempt_count = 0, error = '', due_time = now(), owner = NULL, lease_until = NULL,
           created_count = 0, updated_count = 0, deleted_count = 0, unchanged_count = 0, refused_count = 0, touched = '[]'
     WHERE tenant_id = tenant AND job_id = job;
$$;

-- Leases jobs that are due, or whose worker is gone, of any tenant, to a replica. One that took its worker down as often
-- as may be has failed.
CREATE OR REPLACE FUNCTION memory.lease_extraction_jobs(replica uuid, ttl interval, most integer, attempts integer)
RETURNS TABLE (tenant_id uuid, job_id uuid, epoch bigint) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE memory.extraction_jobs j
       SET state = 'failed', error = 'WORKER_LOST', owner = NULL, lease_until = NULL, epoch = j.epoch + 1
      FROM (SELECT lost.tenant_id, lost.job_id FROM memory.extraction_jobs lost
             WHERE lost.state = 'running' AND lost.lease_until < now() AND lost.attempt_count >= attempts
             LIMIT most FOR UPDATE SKIP LOCKED) given_up
     WHERE j.tenant_id = given_up.tenant_id AND j.job_id = given_up.job_id;
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT p.tenant_id, p.job_id, p.due_time AS since FROM memory.extraction_jobs p
         WHERE p.state = 'pending' AND p.due_time <= now()
         ORDER BY p.due_time LIMIT most FOR UPDATE SKIP LOCKED
    ), lost AS MATERIALIZED (
        SELECT r.tenant_id, r.job_id, r.lease_until AS since FROM memory.extraction_jobs r
         WHERE r.state = 'running' AND r.lease_until < now()
         ORDER BY r.lease_until LIMIT most FOR UPDATE SKIP LOCKED
    ), picked AS (
        SELECT * FROM (SELECT * FROM due UNION ALL SELECT * FROM lost) waiting ORDER BY waiting.since LIMIT most
    )
    UPDATE memory.extraction_jobs j
       SET state = 'running', epoch = j.epoch + 1, attempt_count = j.attempt_count + 1, owner = replica,
           lease_until = now() + ttl
      FROM picked WHERE j.tenant_id = picked.tenant_id AND j.job_id = picked.job_id
    RETURNING j.tenant_id, j.job_id, j.epoch;
END $$;

-- Renews the leases of jobs that a replica has; those not returned are lost.
CREATE OR REPLACE FUNCTION memory.renew_extraction_jobs(
    replica uuid, ttl interval, tenants uuid[], jobs uuid[], epochs bigint[]
) RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH mine AS MATERIALIZED (
        SELECT j.tenant_id, j.job_id FROM unnest(tenants, jobs, epochs) AS held (tenant_id, job_id, epoch)
          JOIN memory.extraction_jobs j
            ON j.tenant_id = held.tenant_id AND j.job_id = held.job_id AND j.epoch = held.epoch
         WHERE j.state = 'running' AND j.owner = replica
         ORDER BY j.tenant_id, j.job_id FOR UPDATE OF j
    )
    UPDATE memory.extraction_jobs j SET lease_until = now() + ttl
      FROM mine WHERE j.tenant_id = mine.tenant_id AND j.job_id = mine.job_id
    RETURNING j.job_id;
$$;

-- Gives a replica's jobs back, so that others take them at once; the try doesn't count.
CREATE OR REPLACE FUNCTION memory.release_extraction_jobs(replica uuid)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH released AS (
        UPDATE memory.extraction_jobs j
           SET state = 'pending', owner = NULL, lease_until = NULL, due_time = now(), epoch = j.epoch + 1,
               attempt_count = greatest(j.attempt_count - 1, 0)
         WHERE j.state = 'running' AND j.owner = replica
        RETURNING 1
    )
    SELECT count(*) FROM released;
$$;

-- Ends a try that failed: the job waits for its next one, or has failed. False to a ghost.
CREATE OR REPLACE FUNCTION memory.fail_extraction_job(
    tenant uuid, job uuid, lease_epoch bigint, why text, is_final boolean, pause interval
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE memory.extraction_jobs j
       SET state = CASE WHEN is_final THEN 'failed' ELSE 'pending' END, error = why, owner = NULL, lease_until = NULL,
           due_time = now() + pause
     WHERE j.tenant_id = tenant AND j.job_id = job AND j.epoch = lease_epoch AND j.state = 'running';
    RETURN FOUND;
END $$;

-- A job, or no row.
CREATE OR REPLACE FUNCTION memory.get_extraction_job(tenant uuid, job uuid)
RETURNS SETOF memory.extraction_jobs LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT * FROM memory.extraction_jobs WHERE tenant_id = tenant AND job_id = job;
END $$;

-- One page of jobs, newest first; NULL filters match all. EXECUTE, so that each combination is planned for its index.
CREATE OR REPLACE FUNCTION memory.list_extraction_jobs(
    tenant uuid, of_session uuid, in_state text, after_time timestamptz, after_id uuid, most integer
) RETURNS SETOF memory.extraction_jobs LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY EXECUTE 'SELECT * FROM memory.extraction_jobs WHERE tenant_id = $1'
        || CASE WHEN of_session IS NULL THEN '' ELSE ' AND session_id = $2' END
        || CASE WHEN in_state IS NULL THEN '' ELSE ' AND state = $3' END
        || ' AND (create_time, job_id) < ($4, $5) ORDER BY create_time DESC, job_id DESC LIMIT $6'
        USING tenant, of_session, in_state, coalesce(after_time, 'infinity'),
              coalesce(after_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'), most;
END $$;

-- Files a memory that was superseded away from its key, which the one that took its place has now. The app role may
-- move no memory to another key; this one way leads to keys that nobody else has.
CREATE OR REPLACE FUNCTION memory.file_away(tenant uuid, memory uuid)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE memory.memories m SET key = left(m.key, 160) || '~' || m.memory_id
     WHERE m.tenant_id = tenant AND m.memory_id = memory AND m.valid_until IS NOT NULL AND m.superseded_by IS NOT NULL
       AND tenant = nullif(current_setting('minion.tenant', true), '')::uuid;
    RETURN FOUND;
END $$;

-- How many jobs wait and have failed, of all tenants, and how long the oldest that is due has waited, in seconds.
CREATE OR REPLACE FUNCTION memory.extraction_backlog(OUT waiting bigint, OUT failed bigint, OUT lag double precision)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT count(*) FROM memory.extraction_jobs WHERE state = 'pending'),
           (SELECT count(*) FROM memory.extraction_jobs WHERE state = 'failed'),
           coalesce(extract(epoch FROM now() - (
               SELECT min(due_time) FROM memory.extraction_jobs WHERE state = 'pending' AND due_time <= now())), 0);
$$;

-- Deletes jobs of all tenants that ended longer ago than an age, at most so many at once; returns how many went.
CREATE OR REPLACE FUNCTION memory.purge_extraction_jobs(age interval, most integer)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT tenant_id, job_id FROM memory.extraction_jobs
         WHERE state IN ('done', 'failed') AND updated_at < now() - age
         LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM memory.extraction_jobs USING old
         WHERE extraction_jobs.tenant_id = old.tenant_id AND extraction_jobs.job_id = old.job_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

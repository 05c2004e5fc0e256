-- The life of sessions: lists, deletion, expiry, erasure, and telling that they are active.

-- A page of sessions before a place in the list, newest first; NULL filters let all through. Each list walks an index
-- in its order. By status it walks the stage; what expired but stands in the stage of the open yet is found by its time.
-- Of a user the status is looked at row by row: one user's sessions are few.
CREATE OR REPLACE FUNCTION session.find_sessions(
    tenant uuid, before_time timestamptz, before_id uuid, wanted_status text, wanted_user text, wanted_agent uuid,
    most integer
) RETURNS SETOF session.sessions LANGUAGE plpgsql ROWS 50 AS $$
DECLARE
    wanted_stage text := CASE wanted_status WHEN 'active' THEN 'open' ELSE wanted_status END;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    IF wanted_user IS NOT NULL THEN
        RETURN QUERY
        SELECT s.* FROM session.sessions s
         WHERE s.tenant_id = tenant AND s.user_id = wanted_user
           AND (s.create_time, s.session_id) < (before_time, before_id)
           AND (wanted_agent IS NULL OR s.agent_id = wanted_agent)
           AND (wanted_status IS NULL
                OR session.status_of(s.close_time, s.expire_time, s.hold_until, now(), s.archive_time) = wanted_status)
         ORDER BY s.create_time DESC, s.session_id DESC LIMIT most;
    ELSIF wanted_agent IS NULL AND wanted_status IS NULL THEN
        RETURN QUERY
        SELECT s.* FROM session.sessions s
         WHERE s.tenant_id = tenant AND (s.create_time, s.session_id) < (before_time, before_id)
         ORDER BY s.create_time DESC, s.session_id DESC LIMIT most;
    ELSIF wanted_status IS NULL THEN
        RETURN QUERY
        SELECT s.* FROM session.sessions s
         WHERE s.tenant_id = tenant AND s.agent_id = wanted_agent
           AND (s.create_time, s.session_id) < (before_time, before_id)
         ORDER BY s.create_time DESC, s.session_id DESC LIMIT most;
    ELSIF wanted_status = 'expired' THEN
        RETURN QUERY
        WITH untold AS MATERIALIZED (
            SELECT s.* FROM session.sessions s
             WHERE s.tenant_id = tenant AND s.stage = 'open' AND s.expire_time <= now()
        ), told AS (
            SELECT s.* FROM session.find_sessions_of_stage(
                tenant, before_time, before_id, 'expired', wanted_agent, most) s
        )
        SELECT s.* FROM (
            SELECT u.* FROM untold u
             WHERE (u.create_time, u.session_id) < (before_time, before_id)
               AND (wanted_agent IS NULL OR u.agent_id = wanted_agent)
               AND session.status_of(u.close_time, u.expire_time, u.hold_until, now(), u.archive_time) = 'expired'
            UNION ALL
            SELECT t.* FROM told t
        ) s
         ORDER BY s.create_time DESC, s.session_id DESC LIMIT most;
    ELSE
        RETURN QUERY
        SELECT s.* FROM session.find_sessions_of_stage(
            tenant, before_time, before_id, wanted_stage, wanted_agent, most) s;
    END IF;
END $$;

-- The same of one stage, less what is in that of the open and has expired. (Of `status_of` the planner knows nothing: it
-- would think that next to no rows pass.) STABLE on purpose: one that is told meanwhile is in one stage alone for whoever
-- asks for two.
CREATE OR REPLACE FUNCTION session.find_sessions_of_stage(
    tenant uuid, before_time timestamptz, before_id uuid, wanted_stage text, wanted_agent uuid, most integer
) RETURNS SETOF session.sessions LANGUAGE plpgsql STABLE ROWS 50 AS $$
BEGIN
    IF wanted_agent IS NULL THEN
        RETURN QUERY
        SELECT s.* FROM session.sessions s
         WHERE s.tenant_id = tenant AND s.stage = wanted_stage
           AND (s.create_time, s.session_id) < (before_time, before_id)
           AND (wanted_stage <> 'open' OR s.expire_time IS NULL OR s.expire_time > now() OR s.hold_until > now())
         ORDER BY s.create_time DESC, s.session_id DESC LIMIT most;
    ELSE
        RETURN QUERY
        SELECT s.* FROM session.sessions s
         WHERE s.tenant_id = tenant AND s.agent_id = wanted_agent AND s.stage = wanted_stage
           AND (s.create_time, s.session_id) < (before_time, before_id)
           AND (wanted_stage <> 'open' OR s.expire_time IS NULL OR s.expire_time > now() OR s.hold_until > now())
         ORDER BY s.create_time DESC, s.session_id DESC LIMIT most;
    END IF;
END $$;

-- Deletes a session of the transaction's tenant with all that hangs on it, and counts what went: the one way by which
-- messages go. DeleteSession, clean-up and erasure all come here. It takes the session's row first, as writers do.
CREATE OR REPLACE FUNCTION session.delete_session(
    target uuid,
    OUT was_there boolean, OUT messages bigint, OUT blobs bigint, OUT summaries bigint, OUT entries bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant uuid := nullif(current_setting('minion.tenant', true), '')::uuid;
BEGIN
    messages := 0;
    blobs := 0;
    summaries := 0;
    entries := 0;
    PERFORM FROM session.sessions s WHERE s.tenant_id = tenant AND s.session_id = target FOR UPDATE;
    was_there := FOUND;
    IF NOT was_there THEN
        RETURN;
    END IF;
    -- Its forks are given what they share with it.
    PERFORM session.hand_down_messages(tenant, target);
    DELETE FROM session.blobs b WHERE b.tenant_id = tenant AND b.session_id = target;
    GET DIAGNOSTICS blobs = ROW_COUNT;
    DELETE FROM session.summaries m WHERE m.tenant_id = tenant AND m.session_id = target;
    GET DIAGNOSTICS summaries = ROW_COUNT;
    DELETE FROM session.workspace_entries e WHERE e.tenant_id = tenant AND e.session_id = target;
    GET DIAGNOSTICS entries = ROW_COUNT;
    DELETE FROM session.messages m WHERE m.tenant_id = tenant AND m.session_id = target;
    GET DIAGNOSTICS messages = ROW_COUNT;
    DELETE FROM session.told_activity t WHERE t.tenant_id = tenant AND t.session_id = target;
    DELETE FROM session.sessions s WHERE s.tenant_id = tenant AND s.session_id = target;
    INSERT INTO session.changes (tenant_id, resource_id, kind) VALUES (tenant, target, 'deleted');
END $$;

-- How many bytes the blobs of a session have, which is what deleting them takes: some seconds a gigabyte.
CREATE OR REPLACE FUNCTION session.blob_bytes(tenant uuid, target uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(b.size_bytes), 0)::bigint FROM session.blobs b
     WHERE b.tenant_id = tenant AND b.session_id = target;
$$;

-- Tenants in which there is something to clean up: sessions whose time is up, or, with `kept`, that expired longer ago.
CREATE OR REPLACE FUNCTION session.tenants_to_clean(kept interval, most integer)
RETURNS TABLE (tenant_id uuid) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT due.tenant_id
      FROM (SELECT s.tenant_id FROM session.sessions s
             WHERE s.stage = 'open' AND s.expire_time <= now() AND coalesce(s.hold_until <= now(), true)
             ORDER BY s.expire_time LIMIT most) due
    UNION
    SELECT old.tenant_id
      FROM (SELECT s.tenant_id FROM session.sessions s
             WHERE s.stage = 'expired' AND s.expiry_told_time < now() - kept
             ORDER BY s.expiry_told_time LIMIT most) old;
$$;

-- Tells of sessions whose time is up that they expired, each once, and deletes those of which that was told longer than
-- `kept` ago (NULL: none), at most so many of each, and no more once 100,000 messages or 256 MiB of blobs went, so that
-- a round ends within the statement's time; those that somebody is busy with have to wait. It works in the
-- tenant of the transaction; for the schema's owner, who sees all tenants, in all of them.
CREATE OR REPLACE FUNCTION session.cleanup_expired_sessions(
    most integer DEFAULT 1000, kept interval DEFAULT NULL, OUT expired bigint, OUT deleted bigint
) LANGUAGE plpgsql AS $$
DECLARE
    old   record;
    gone  bigint := 0;
    bytes bigint := 0;
BEGIN
    WITH due AS (
        SELECT s.tenant_id, s.session_id FROM session.sessions s
         WHERE s.stage = 'open' AND s.expire_time <= now() AND coalesce(s.hold_until <= now(), true)
         ORDER BY s.expire_time LIMIT most
           FOR NO KEY UPDATE SKIP LOCKED
    ), marked AS (
        UPDATE session.sessions s SET expiry_told_time = now()
          FROM due WHERE s.tenant_id = due.tenant_id AND s.session_id = due.session_id
        RETURNING s.tenant_id, s.session_id
    )
    INSERT INTO session.changes (tenant_id, resource_id, kind)
    SELECT m.tenant_id, m.session_id, 'expired' FROM marked m;
    GET DIAGNOSTICS expired = ROW_COUNT;
    deleted := 0;
    FOR old IN
        SELECT s.tenant_id, s.session_id FROM session.sessions s
         WHERE s.stage = 'expired' AND s.expiry_told_time < now() - kept
         ORDER BY s.expiry_told_time LIMIT most
           FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM set_config('minion.tenant', old.tenant_id::text, true);
        bytes := bytes + session.blob_bytes(old.tenant_id, old.session_id);
        gone := gone + (SELECT d.messages FROM session.delete_session(old.session_id) d);
        deleted := deleted + 1;
        EXIT WHEN gone >= 100000 OR bytes >= 268435456;
    END LOOP;
END $$;

-- Deletes sessions of a user, the newest first: forks (which are the same user's, whoever made them) before what they
-- were made of, so that nothing is copied for them. It stops after `most` messages or 256 MiB of blobs, not amid a
-- session, and says whether to come again; the last time it deletes what is stored of the user for replays.
CREATE OR REPLACE FUNCTION session.erase_subject(
    tenant uuid, erased_user text, most bigint,
    OUT is_done boolean, OUT sessions bigint, OUT messages bigint, OUT blobs bigint, OUT summaries bigint,
    OUT entries bigint, OUT replies bigint, OUT erase_time timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    target uuid;
    gone   record;
    bytes  bigint := 0;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    sessions := 0;
    messages := 0;
    blobs := 0;
    summaries := 0;
    entries := 0;
    replies := 0;
    erase_time := clock_timestamp();
    is_done := false;
    WHILE messages < most AND sessions < most AND bytes < 268435456 LOOP
        SELECT s.session_id INTO target FROM session.sessions s
         WHERE s.tenant_id = tenant AND s.user_id = erased_user
         ORDER BY s.create_time DESC, s.session_id DESC LIMIT 1;
        IF NOT FOUND THEN
            DELETE FROM session.idempotency_keys k WHERE k.tenant_id = tenant AND k.subject = erased_user;
            GET DIAGNOSTICS replies = ROW_COUNT;
            is_done := true;
            RETURN;
        END IF;
        bytes := bytes + session.blob_bytes(tenant, target);
        SELECT * INTO gone FROM session.delete_session(target);
        -- One that somebody else deleted meanwhile is theirs to count.
        CONTINUE WHEN NOT gone.was_there;
        sessions := sessions + 1;
        messages := messages + gone.messages;
        blobs := blobs + gone.blobs;
        summaries := summaries + gone.summaries;
        entries := entries + gone.entries;
    END LOOP;
END $$;

-- Begins a round of telling which sessions are active, where none began within `pause`; no row otherwise. `since` is
-- from when on messages may not have been told. A clock that was set back begins a round at once.
CREATE OR REPLACE FUNCTION session.begin_activity_round(pause interval)
RETURNS TABLE (begin_time timestamptz, since timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE session.activity_rounds r SET begin_time = now()
     WHERE r.begin_time <= now() - pause OR r.begin_time > now()
    RETURNING r.begin_time, r.told_before;
$$;

-- Sessions of all tenants that have messages since a time which were not told: ids alone.
CREATE OR REPLACE FUNCTION session.pick_active(since timestamptz, most integer)
RETURNS TABLE (tenant_id uuid, session_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT said.tenant_id, said.session_id
      FROM (SELECT m.tenant_id, m.session_id, max(m.sequence) AS last_sequence
              FROM session.messages m WHERE m.create_time >= since
             GROUP BY m.tenant_id, m.session_id) said
      LEFT JOIN session.told_activity t ON t.tenant_id = said.tenant_id AND t.session_id = said.session_id
     WHERE t.last_sequence IS NULL OR t.last_sequence < said.last_sequence
     ORDER BY said.tenant_id, said.session_id LIMIT most;
$$;

-- Tells that sessions are active, as far as it wasn't told of their last message; returns of how many. One that is
-- being deleted is passed over: should it stay after all, the next round finds it.
CREATE OR REPLACE FUNCTION session.tell_active(tenant uuid, targets uuid[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    told bigint;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    WITH live AS (
        SELECT s.session_id, s.last_sequence FROM session.sessions s
         WHERE s.tenant_id = tenant AND s.session_id = ANY (targets)
           FOR KEY SHARE SKIP LOCKED
    ), news AS (
        INSERT INTO session.told_activity AS t (tenant_id, session_id, last_sequence, tell_time)
        SELECT tenant, l.session_id, l.last_sequence, clock_timestamp() FROM live l ORDER BY l.session_id
        ON CONFLICT (tenant_id, session_id) DO UPDATE
           SET last_sequence = excluded.last_sequence, tell_time = excluded.tell_time
         WHERE t.last_sequence < excluded.last_sequence
        RETURNING t.session_id
    )
    INSERT INTO session.changes (tenant_id, resource_id, kind) SELECT tenant, n.session_id, 'active' FROM news n;
    GET DIAGNOSTICS told = ROW_COUNT;
    RETURN told;
END $$;

-- Ends a round: all messages older than `until` were told. What is kept of tellings longer ago than any round may look
-- back goes.
CREATE OR REPLACE FUNCTION session.end_activity_round(until timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE session.activity_rounds r SET told_before = until;
    DELETE FROM session.told_activity t WHERE t.tell_time < until - interval '1 hour';
$$;

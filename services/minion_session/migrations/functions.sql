-- The session service's functions. Each that serves a call sets the tenant itself, does its work in one round trip, and
-- says in `outcome` why it did nothing: OK, or a reason of the contract. Nothing is written before all checks are done.

-- Where a session is in its life at a moment. One that a run holds doesn't expire. (The last release leaves
-- `archive_time` out.)
CREATE OR REPLACE FUNCTION session.status_of(
    close_time timestamptz, expire_time timestamptz, hold_until timestamptz, moment timestamptz,
    archive_time timestamptz DEFAULT NULL
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN archive_time IS NOT NULL THEN 'archived'
                WHEN close_time IS NOT NULL THEN 'closed'
                WHEN expire_time <= moment AND (hold_until IS NULL OR hold_until <= moment) THEN 'expired'
                ELSE 'active' END;
$$;

-- Reads a session; all columns are NULL when there is none.
CREATE OR REPLACE FUNCTION session.get_session(
    tenant uuid, target uuid,
    OUT session_id uuid, OUT agent_id uuid, OUT user_id text, OUT display_name text, OUT status text,
    OUT last_sequence bigint, OUT metadata jsonb, OUT create_time timestamptz, OUT update_time timestamptz,
    OUT expire_time timestamptz, OUT close_time timestamptz, OUT archive_time timestamptz, OUT version bigint,
    OUT parent_session_id uuid, OUT fork_sequence bigint
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT s.session_id, s.agent_id, s.user_id, s.display_name,
           session.status_of(s.close_time, s.expire_time, s.hold_until, now(), s.archive_time),
           s.last_sequence, s.metadata, s.create_time, s.updated_at, s.expire_time, s.close_time, s.archive_time,
           s.version, s.parent_session_id, s.fork_sequence
      INTO session_id, agent_id, user_id, display_name, status,
           last_sequence, metadata, create_time, update_time, expire_time, close_time, archive_time, version,
           parent_session_id, fork_sequence
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target;
END $$;

-- Where the messages of a step stand; no row when it has appended nothing. STABLE, so that it becomes part of the
-- statement that asks, whose snapshot is taken after the lock.
CREATE OR REPLACE FUNCTION session.recall_step(tenant uuid, run uuid, step integer)
RETURNS TABLE (
    kept_session uuid, kept_role text, kept_first bigint, kept_last bigint, kept_time timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT m.session_id, m.role, m.sequence - m.step_place, m.sequence, m.create_time
      FROM session.messages m
     WHERE m.tenant_id = tenant AND m.run_id = run AND m.step_sequence = step
     ORDER BY m.step_place DESC LIMIT 1;
$$;

-- Whether a session has messages of a run. The planner knows nothing of it: next to no append has to ask, and none
-- shall be planned anew because some need not.
CREATE OR REPLACE FUNCTION session.has_spoken(tenant uuid, target uuid, run uuid)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN target = ANY (SELECT m.session_id FROM session.messages m WHERE m.tenant_id = tenant AND m.run_id = run);
END $$;

-- Appends one batch. The lock on the session's row puts writers in order, which makes the sequence gapless and lets a
-- replay see what the first try stored. `run` and `step` are NULL without a source, `request` without a request_id,
-- `expected` without an expected_sequence; `contents` and `extras` are JSON. With SEQUENCE_MOVED `last_sequence` is the
-- session's last. With `release`, where nobody holds the session and the run never spoke in it, it is not the session
-- that the run began in: that one was deleted, and its id given to another.
--
-- A message alone, with no request_id, is tried first in one statement: lock, checks, sequence and row, at two thirds of
-- what the steps below take. It stores nothing unless all is well; what was amiss the steps find out. Its look for the
-- step is as old as the statement: when it waited for the lock meanwhile, the unique index refuses the step, and the
-- caller calls again.
CREATE OR REPLACE FUNCTION session.append_messages(
    tenant uuid, target uuid, request uuid, request_digest bytea, expected bigint, run uuid, step integer,
    release boolean, roles text[], authors text[], contents text[], tokens integer[], sizes integer[], extras text[],
    OUT outcome text, OUT status text,
    OUT first_sequence bigint, OUT last_sequence bigint, OUT create_time timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    held  record;
    kept  record;
    known jsonb;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    IF request IS NULL AND cardinality(roles) = 1 THEN
        WITH bumped AS (
            UPDATE session.sessions s
               SET last_sequence = s.last_sequence + 1,
                   hold_until = CASE WHEN release AND s.held_by_run = run THEN NULL ELSE s.hold_until END,
                   held_by_run = CASE WHEN release AND s.held_by_run = run THEN NULL ELSE s.held_by_run END
             WHERE s.tenant_id = tenant AND s.session_id = target
               AND (s.held_by_run = run
                    OR (s.close_time IS NULL AND s.archive_time IS NULL
                        AND (s.expire_time IS NULL OR s.expire_time > clock_timestamp())))
               AND (expected IS NULL OR s.last_sequence = expected)
               AND (NOT release OR s.held_by_run IS NOT NULL OR session.has_spoken(tenant, target, run))
               AND NOT EXISTS (SELECT FROM session.messages m
                                WHERE m.tenant_id = tenant AND m.run_id = run AND m.step_sequence = step)
            RETURNING s.last_sequence, clock_timestamp() AS moment
        )
        INSERT INTO session.messages AS m
               (tenant_id, session_id, run_id, sequence, create_time, step_sequence, token_count, byte_count,
                step_place, role, author, parts, metadata)
        SELECT tenant, target, run, bumped.last_sequence, bumped.moment, step, tokens[1], sizes[1],
               CASE WHEN run IS NOT NULL THEN 0 END, roles[1], authors[1], contents[1]::jsonb, extras[1]::jsonb
          FROM bumped
        RETURNING m.sequence, m.sequence, m.create_time INTO first_sequence, last_sequence, create_time;
        IF FOUND THEN
            outcome := 'OK';
            RETURN;
        END IF;
    END IF;
    SELECT s.last_sequence, s.close_time, s.expire_time, s.hold_until, s.held_by_run, s.archive_time INTO held
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        outcome := 'SESSION_NOT_FOUND';
        RETURN;
    END IF;
    IF request IS NOT NULL THEN
        known := session.recall_request(tenant, request, 'AppendMessages', request_digest);
        IF known IS NOT NULL THEN
            outcome := 'OK';
            first_sequence := known ->> 'first_sequence';
            last_sequence := known ->> 'last_sequence';
            create_time := known ->> 'create_time';
            RETURN;
        END IF;
    END IF;
    IF run IS NOT NULL THEN
        SELECT * INTO kept FROM session.recall_step(tenant, run, step);
        IF FOUND THEN
            outcome := CASE WHEN kept.kept_session = target THEN 'OK' ELSE 'STEP_ELSEWHERE' END;
            first_sequence := kept.kept_first;
            last_sequence := kept.kept_last;
            create_time := kept.kept_time;
            RETURN;
        END IF;
    END IF;
    IF release AND held.held_by_run IS NULL AND NOT session.has_spoken(tenant, target, run) THEN
        outcome := 'SESSION_NOT_FOUND';
        RETURN;
    END IF;
    -- Taken after the lock, so that times grow with the sequence.
    create_time := clock_timestamp();
    status := session.status_of(held.close_time, held.expire_time, held.hold_until, create_time, held.archive_time);
    -- A run that began may finish, whatever became of the session meanwhile.
    IF status <> 'active' AND (run IS NULL OR held.held_by_run IS DISTINCT FROM run) THEN
        outcome := 'SESSION_NOT_ACTIVE';
        RETURN;
    END IF;
    IF expected <> held.last_sequence THEN
        outcome := 'SEQUENCE_MOVED';
        last_sequence := held.last_sequence;
        RETURN;
    END IF;
    UPDATE session.sessions s
       SET last_sequence = s.last_sequence + cardinality(roles),
           hold_until = CASE WHEN release AND s.held_by_run = run THEN NULL ELSE s.hold_until END,
           held_by_run = CASE WHEN release AND s.held_by_run = run THEN NULL ELSE s.held_by_run END
     WHERE s.tenant_id = tenant AND s.session_id = target
    RETURNING s.last_sequence INTO last_sequence;
    first_sequence := last_sequence - cardinality(roles) + 1;
    INSERT INTO session.messages AS m
           (tenant_id, session_id, run_id, sequence, create_time, step_sequence, token_count, byte_count, step_place,
            role, author, parts, metadata)
    SELECT tenant, target, run, first_sequence + place - 1, append_messages.create_time, step, new.tokens, new.size,
           CASE WHEN run IS NOT NULL THEN place - 1 END, new.role, new.author, new.parts::jsonb, new.metadata::jsonb
      FROM unnest(roles, authors, contents, tokens, sizes, extras) WITH ORDINALITY
           AS new (role, author, parts, tokens, size, metadata, place);
    IF request IS NOT NULL THEN
        INSERT INTO session.idempotency_keys (tenant_id, request_id, method, digest, result)
             VALUES (tenant, request, 'AppendMessages', request_digest,
                     jsonb_build_object('first_sequence', first_sequence, 'last_sequence', last_sequence,
                                        'create_time', append_messages.create_time));
    END IF;
    outcome := 'OK';
END $$;

-- Messages of a session after a sequence (before it when descending; NULL starts at the end). The first row holds the
-- session's last sequence and no message; no row at all: no such session. Stops early before `most_bytes`, after one.
-- What a fork shares is read from its holders. STABLE on purpose: all is read as it was at one moment, so that of a
-- session that is deleted meanwhile there is all or nothing.
CREATE OR REPLACE FUNCTION session.list_messages(
    tenant uuid, target uuid, edge bigint, descending boolean, most integer, most_bytes bigint
) RETURNS TABLE (
    last_sequence bigint, sequence bigint, role text, author text, parts jsonb, token_count integer, run_id uuid,
    metadata jsonb, create_time timestamptz
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    final  bigint;
    shared bigint;
    low    bigint;
    high   bigint;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT s.last_sequence, s.shared_sequence INTO final, shared
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    last_sequence := final;
    RETURN NEXT;
    IF descending THEN
        high := least(coalesce(edge - 1, final), final);
        low := high - most;
    ELSE
        low := least(coalesce(edge, 0), final);
        high := least(low + most, final);
    END IF;
    IF shared > 0 AND low < shared THEN
        RETURN QUERY
        SELECT NULL::bigint, page.sequence, page.role, page.author, page.parts, page.token_count, page.run_id,
               page.metadata, page.create_time
          FROM (SELECT m.*, sum(m.byte_count) OVER w - m.byte_count AS before
                  FROM session.read_stretch(tenant, target, low, high) m
                WINDOW w AS (ORDER BY CASE WHEN descending THEN -m.sequence ELSE m.sequence END)) page
         WHERE page.before = 0 OR page.before + page.byte_count <= most_bytes
         ORDER BY CASE WHEN descending THEN -page.sequence ELSE page.sequence END;
        RETURN;
    END IF;
    -- Few pages are too large, and one sum tells which: adding up message by message takes as long as all the rest.
    IF (SELECT sum(m.byte_count) > most_bytes
          FROM session.messages m
         WHERE m.tenant_id = tenant AND m.session_id = target AND m.sequence > low AND m.sequence <= high) THEN
        SELECT greatest(count(*), 1) INTO most
          FROM (SELECT sum(m.byte_count) OVER (ORDER BY CASE WHEN descending THEN -m.sequence ELSE m.sequence END)
                       AS so_far
                  FROM session.messages m
                 WHERE m.tenant_id = tenant AND m.session_id = target AND m.sequence > low AND m.sequence <= high) page
         WHERE page.so_far <= most_bytes;
    END IF;
    IF descending THEN
        RETURN QUERY
        SELECT NULL::bigint, m.sequence, m.role, m.author, m.parts, m.token_count, m.run_id, m.metadata, m.create_time
          FROM session.messages m
         WHERE m.tenant_id = tenant AND m.session_id = target AND m.sequence > high - most AND m.sequence <= high
         ORDER BY m.sequence DESC;
    ELSE
        RETURN QUERY
        SELECT NULL::bigint, m.sequence, m.role, m.author, m.parts, m.token_count, m.run_id, m.metadata, m.create_time
          FROM session.messages m
         WHERE m.tenant_id = tenant AND m.session_id = target AND m.sequence > low AND m.sequence <= low + most
         ORDER BY m.sequence;
    END IF;
END $$;

-- Releases a run's hold; false when there is no such session.
CREATE OR REPLACE FUNCTION session.end_turn(tenant uuid, target uuid, run uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE session.sessions s SET held_by_run = NULL, hold_until = NULL
     WHERE s.tenant_id = tenant AND s.session_id = target AND s.held_by_run = run;
    RETURN FOUND OR EXISTS (SELECT FROM session.sessions s WHERE s.tenant_id = tenant AND s.session_id = target);
END $$;

-- Says whether working memory may change, and locks the session's row, which puts its writers in order: they wait for
-- each other shortly, and the workspace's limit holds exactly. `status` is NULL when there is no session; `subject` is
-- whose words the keys may be.
CREATE OR REPLACE FUNCTION session.open_workspace(
    tenant uuid, target uuid, OUT status text, OUT is_open boolean, OUT subject text
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT session.status_of(s.close_time, s.expire_time, s.hold_until, clock_timestamp(), s.archive_time),
           coalesce(s.hold_until > clock_timestamp(), false), s.user_id
      INTO status, is_open, subject
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target
       FOR NO KEY UPDATE;
    is_open := is_open OR status = 'active';
END $$;

-- Sets entries of working memory, all or none; `contents` is JSON, `expected` holds NULL where any version will do.
-- `entries` lists key, version and update_time in the order given. With
-- WORKSPACE_VERSION_MOVED `moved_key` and `moved_version` name the first entry that isn't as expected.
CREATE OR REPLACE FUNCTION session.set_workspace_entries(
    tenant uuid, target uuid, request uuid, request_digest bytea, keys text[], contents text[], sizes integer[],
    expected bigint[], most_entries bigint, most_bytes bigint,
    OUT outcome text, OUT status text, OUT moved_key text, OUT moved_version bigint, OUT entries jsonb
) LANGUAGE plpgsql AS $$
DECLARE
    is_open boolean;
    is_full boolean;
    subject text;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT w.status, w.is_open, w.subject INTO status, is_open, subject FROM session.open_workspace(tenant, target) w;
    IF status IS NULL THEN
        outcome := 'SESSION_NOT_FOUND';
        RETURN;
    END IF;
    IF request IS NOT NULL THEN
        entries := session.recall_request(tenant, request, 'SetWorkspaceEntries', request_digest);
        IF entries IS NOT NULL THEN
            outcome := 'OK';
            RETURN;
        END IF;
    END IF;
    IF NOT is_open THEN
        outcome := 'SESSION_NOT_ACTIVE';
        RETURN;
    END IF;
    SELECT new.key, coalesce(e.version, 0) INTO moved_key, moved_version
      FROM unnest(keys, expected) WITH ORDINALITY AS new (key, expected, place)
      LEFT JOIN session.workspace_entries e
             ON e.tenant_id = tenant AND e.session_id = target AND e.key = new.key
     WHERE new.expected <> coalesce(e.version, 0)
     ORDER BY new.place LIMIT 1;
    IF FOUND THEN
        outcome := 'WORKSPACE_VERSION_MOVED';
        RETURN;
    END IF;
    SELECT count(*) + cardinality(keys) > most_entries
           OR coalesce(sum(e.byte_count), 0) + (SELECT sum(size) FROM unnest(sizes) AS size) > most_bytes
      INTO is_full
      FROM session.workspace_entries e
     WHERE e.tenant_id = tenant AND e.session_id = target AND e.key <> ALL (keys);
    IF is_full THEN
        outcome := 'WORKSPACE_FULL';
        RETURN;
    END IF;
    WITH stored AS (
        INSERT INTO session.workspace_entries AS e (tenant_id, session_id, byte_count, key, value)
        SELECT tenant, target, new.size, new.key, new.value::jsonb
          FROM unnest(keys, contents, sizes) AS new (key, value, size)
        ON CONFLICT (tenant_id, session_id, key) DO UPDATE
           SET value = excluded.value, byte_count = excluded.byte_count, version = e.version + 1
        RETURNING e.key, e.version, e.updated_at
    )
    SELECT jsonb_agg(jsonb_build_object('key', s.key, 'version', s.version, 'update_time', s.updated_at)
                     ORDER BY array_position(keys, s.key))
      INTO entries
      FROM stored s;
    IF request IS NOT NULL THEN
        INSERT INTO session.idempotency_keys (tenant_id, request_id, method, digest, subject, result)
             VALUES (tenant, request, 'SetWorkspaceEntries', request_digest, subject, entries);
    END IF;
    outcome := 'OK';
END $$;

-- Deletes entries of working memory; those that aren't there are passed over.
CREATE OR REPLACE FUNCTION session.delete_workspace_entries(
    tenant uuid, target uuid, request uuid, request_digest bytea, keys text[],
    OUT outcome text, OUT status text, OUT deleted integer
) LANGUAGE plpgsql AS $$
DECLARE
    is_open boolean;
    known   jsonb;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT w.status, w.is_open INTO status, is_open FROM session.open_workspace(tenant, target) w;
    IF status IS NULL THEN
        outcome := 'SESSION_NOT_FOUND';
        RETURN;
    END IF;
    IF request IS NOT NULL THEN
        known := session.recall_request(tenant, request, 'DeleteWorkspaceEntries', request_digest);
        IF known IS NOT NULL THEN
            outcome := 'OK';
            deleted := known;
            RETURN;
        END IF;
    END IF;
    IF NOT is_open THEN
        outcome := 'SESSION_NOT_ACTIVE';
        RETURN;
    END IF;
    DELETE FROM session.workspace_entries e
     WHERE e.tenant_id = tenant AND e.session_id = target AND e.key = ANY (keys);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF request IS NOT NULL THEN
        INSERT INTO session.idempotency_keys (tenant_id, request_id, method, digest, result)
             VALUES (tenant, request, 'DeleteWorkspaceEntries', request_digest, to_jsonb(deleted));
    END IF;
    outcome := 'OK';
END $$;

-- How many sessions of all tenants take messages: exact up to `most`, beyond it what the last vacuum or analyze knew of
-- the sessions that are open. A session past its expire time that a run still holds is not counted.
CREATE OR REPLACE FUNCTION session.count_active_sessions(most bigint) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH counted AS (
        SELECT (SELECT count(*) FROM (SELECT FROM session.sessions s
                                       WHERE s.stage = 'open' AND s.expire_time IS NULL LIMIT most) lasting)
             + (SELECT count(*) FROM (SELECT FROM session.sessions s
                                       WHERE s.stage = 'open' AND s.expire_time > now() LIMIT most) passing) AS n
    )
    SELECT CASE WHEN n < most THEN n
                ELSE greatest(n, (SELECT c.reltuples::bigint FROM pg_class c
                                   WHERE c.oid = 'session.sessions_open'::regclass)) END
      FROM counted;
$$;

-- Claims a request for the running transaction. The first caller gets claimed = true and does the work; a repeat waits
-- for the first, then gets claimed = false and the first result. Another body or method raises MN409.
CREATE OR REPLACE FUNCTION session.claim_request(
    tenant uuid, request uuid, request_method text, request_digest bytea, request_subject text,
    OUT claimed boolean, OUT first_result jsonb
) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session.idempotency_keys (tenant_id, request_id, method, digest, subject)
         VALUES (tenant, request, request_method, request_digest, request_subject)
    ON CONFLICT (tenant_id, request_id) DO NOTHING;
    claimed := FOUND;
    IF NOT claimed THEN
        first_result := session.recall_request(tenant, request, request_method, request_digest);
    END IF;
END $$;

-- Keeps the result of a claimed request, in the transaction that claimed it.
CREATE OR REPLACE FUNCTION session.record_result(tenant uuid, request uuid, request_result jsonb)
RETURNS void LANGUAGE sql AS $$
    UPDATE session.idempotency_keys SET result = request_result WHERE tenant_id = tenant AND request_id = request;
$$;

-- The first result of a request; NULL when it is new. Another body or method raises MN409. VOLATILE on purpose: it must
-- see what was committed while the caller waited for a lock.
CREATE OR REPLACE FUNCTION session.recall_request(
    tenant uuid, request uuid, request_method text, request_digest bytea
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    known session.idempotency_keys;
BEGIN
    SELECT * INTO known FROM session.idempotency_keys WHERE tenant_id = tenant AND request_id = request;
    IF FOUND AND (known.method <> request_method OR known.digest <> request_digest) THEN
        RAISE EXCEPTION 'REQUEST_ID_REUSED' USING ERRCODE = 'MN409',
            DETAIL = 'This request_id came before with another request.',
            HINT = jsonb_build_object('request_id', request)::text;
    END IF;
    RETURN known.result;
END $$;

-- Deletes keys older than an age, of all tenants, at most so many at once; returns how many went. None younger than an
-- hour, whatever the age: a request may still be tried again.
CREATE OR REPLACE FUNCTION session.purge_requests(age interval, most integer)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT tenant_id, request_id FROM session.idempotency_keys
         WHERE create_time < now() - age AND create_time < now() - interval '1 hour'
         LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM session.idempotency_keys USING old
         WHERE idempotency_keys.tenant_id = old.tenant_id AND idempotency_keys.request_id = old.request_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- Contexts: what a model is shown of a session. The functions read the newest messages and the newest summary; what is
-- shown of them is decided in `contexts/domain.py`.

-- The window that a context is cut from, newest first: messages up to `upto`, at most `most` of them and `most_bytes`
-- together (the first always), as long as those after them take no more than twice the budget; one message counts as
-- half of the budget at most, since a larger one is shown cut. When they begin amid a turn, the user's message that
-- opened it follows, from no more than a thousand further back: a context begins with a user's message. The sequence
-- has no gaps, so all of it is a range of the primary key, however long the session is. `shared` is the session's
-- shared_sequence: messages up to it are read from their holders. Planning takes longer than running, so that it is
-- planned once a connection.
CREATE OR REPLACE FUNCTION session.read_window(
    tenant uuid, target uuid, shared bigint, upto bigint, token_budget bigint, most integer, most_bytes bigint
) RETURNS TABLE (
    sequence bigint, role text, author text, parts jsonb, token_count integer, run_id uuid, metadata jsonb,
    create_time timestamptz
) LANGUAGE plpgsql STABLE ROWS 50 SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    count   bigint;
    lowest  bigint;
    opening bigint;
BEGIN
    IF upto - most >= shared THEN
        RETURN QUERY
        SELECT page.sequence, page.role, page.author, page.parts, page.token_count, page.run_id, page.metadata,
               page.create_time
          FROM (SELECT m.*,
                       sum(least(m.token_count, token_budget / 2)) OVER w - least(m.token_count, token_budget / 2)
                           AS tokens_after,
                       sum(m.byte_count) OVER w AS bytes_so_far
                  FROM session.messages m
                 WHERE m.tenant_id = tenant AND m.session_id = target
                   AND m.sequence > upto - most AND m.sequence <= upto
                WINDOW w AS (ORDER BY m.sequence DESC)) page
         WHERE page.sequence = upto OR (page.tokens_after <= 2 * token_budget AND page.bytes_so_far <= most_bytes)
         ORDER BY page.sequence DESC;
    ELSE
        RETURN QUERY
        SELECT page.sequence, page.role, page.author, page.parts, page.token_count, page.run_id, page.metadata,
               page.create_time
          FROM (SELECT m.*,
                       sum(least(m.token_count, token_budget / 2)) OVER w - least(m.token_count, token_budget / 2)
                           AS tokens_after,
                       sum(m.byte_count) OVER w AS bytes_so_far
                  FROM session.read_stretch(tenant, target, greatest(upto - most, 0), upto) m
                WINDOW w AS (ORDER BY m.sequence DESC)) page
         WHERE page.sequence = upto OR (page.tokens_after <= 2 * token_budget AND page.bytes_so_far <= most_bytes)
         ORDER BY page.sequence DESC;
    END IF;
    -- What is counted only grows on the way back, so the rows are the newest without a gap.
    GET DIAGNOSTICS count = ROW_COUNT;
    lowest := upto - count + 1;
    SELECT m.sequence INTO opening
      FROM session.messages m
     WHERE m.tenant_id = tenant AND m.session_id = target AND m.role = 'user'
       AND m.sequence <= lowest AND m.sequence >= greatest(lowest - 1000, shared + 1)
     ORDER BY m.sequence DESC LIMIT 1;
    IF opening IS NULL AND shared > 0 THEN
        SELECT max(m.sequence) INTO opening
          FROM session.read_stretch(tenant, target, greatest(lowest - 1001, 0), least(lowest, shared)) m
         WHERE m.role = 'user';
    END IF;
    IF opening < lowest AND opening > shared THEN
        RETURN QUERY
        SELECT m.sequence, m.role, m.author, m.parts, m.token_count, m.run_id, m.metadata, m.create_time
          FROM session.messages m
         WHERE m.tenant_id = tenant AND m.session_id = target AND m.sequence = opening;
    ELSIF opening < lowest THEN
        RETURN QUERY
        SELECT m.sequence, m.role, m.author, m.parts, m.token_count, m.run_id, m.metadata, m.create_time
          FROM session.read_stretch(tenant, target, opening - 1, opening) m;
    END IF;
END $$;

-- The newest summary of a session that had been saved when the message after `before` came.
CREATE OR REPLACE FUNCTION session.newest_summary(tenant uuid, target uuid, before bigint)
RETURNS SETOF session.summaries LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT s.* FROM session.summaries s
     WHERE s.tenant_id = tenant AND s.session_id = target AND s.saved_after <= before
     ORDER BY s.place DESC LIMIT 1;
$$;

-- Reads a context's session and summary (in the first row), and then its window; the outcome alone when there is no such
-- session. STABLE on purpose, as its window: all of it is of one moment.
CREATE OR REPLACE FUNCTION session.get_context(
    tenant uuid, target uuid, token_budget bigint, most integer, most_bytes bigint
) RETURNS TABLE (
    outcome text,
    session_id uuid, agent_id uuid, user_id text, display_name text, status text, last_sequence bigint,
    session_metadata jsonb, session_create_time timestamptz, update_time timestamptz, expire_time timestamptz,
    close_time timestamptz, archive_time timestamptz, version bigint, parent_session_id uuid, fork_sequence bigint,
    summary_id uuid, summary_run_id uuid, summary_first bigint, summary_last bigint, summary_tokens integer,
    summary_model text, summary_text text, summary_time timestamptz,
    sequence bigint, role text, author text, parts jsonb, token_count integer, run_id uuid, metadata jsonb,
    create_time timestamptz
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    shared bigint;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT s.session_id, s.agent_id, s.user_id, s.display_name,
           session.status_of(s.close_time, s.expire_time, s.hold_until, now(), s.archive_time), s.last_sequence, s.metadata,
           s.create_time, s.updated_at, s.expire_time, s.close_time, s.archive_time,
           s.version, s.parent_session_id, s.fork_sequence,
           s.shared_sequence
      INTO session_id, agent_id, user_id, display_name, status, last_sequence, session_metadata, session_create_time,
           update_time, expire_time, close_time, archive_time, version, parent_session_id, fork_sequence, shared
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target;
    outcome := CASE WHEN FOUND THEN 'OK' ELSE 'SESSION_NOT_FOUND' END;
    IF outcome = 'OK' THEN
        SELECT s.summary_id, s.run_id, s.first_sequence, s.last_sequence, s.token_count, s.model, s.content, s.create_time
          INTO summary_id, summary_run_id, summary_first, summary_last, summary_tokens, summary_model, summary_text,
               summary_time
          FROM session.newest_summary(tenant, target, last_sequence) s;
    END IF;
    RETURN NEXT;
    RETURN QUERY
    SELECT NULL::text, NULL::uuid, NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::bigint,
           NULL::jsonb, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz,
           NULL::bigint, NULL::uuid, NULL::bigint,
           NULL::uuid, NULL::uuid, NULL::bigint, NULL::bigint, NULL::integer, NULL::text, NULL::text, NULL::timestamptz,
           w.*
      FROM session.read_window(tenant, target, shared, last_sequence, token_budget, most, most_bytes) w
     WHERE outcome = 'OK';
END $$;

-- Appends the user's message, holds the session for the run, and reads what the context is cut from: one row with the
-- outcome, the session and its summary, then the window, the user's message first. A replay finds the message by its
-- step and reads the window and the summary of then; it renews the hold where the run still has it. With SESSION_HELD
-- `holder` is the run that holds.
CREATE OR REPLACE FUNCTION session.begin_turn(
    tenant uuid, target uuid, run uuid, step integer, new_author text, new_parts jsonb, tokens integer, size integer,
    extra jsonb, hold interval, token_budget bigint, most integer, most_bytes bigint
) RETURNS TABLE (
    outcome text, holder uuid,
    session_id uuid, agent_id uuid, user_id text, display_name text, status text, last_sequence bigint,
    session_metadata jsonb, session_create_time timestamptz, update_time timestamptz, expire_time timestamptz,
    close_time timestamptz, archive_time timestamptz, version bigint, parent_session_id uuid, fork_sequence bigint,
    summary_id uuid, summary_run_id uuid, summary_first bigint, summary_last bigint, summary_tokens integer,
    summary_model text, summary_text text, summary_time timestamptz,
    sequence bigint, role text, author text, parts jsonb, token_count integer, run_id uuid, metadata jsonb,
    create_time timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    kept    record;
    upto    bigint;
    shared  bigint;
    moment  timestamptz;
    until   timestamptz;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT s.session_id, s.agent_id, s.user_id, s.display_name, s.last_sequence, s.metadata, s.create_time,
           s.updated_at, s.expire_time, s.close_time, s.archive_time,
           s.version, s.parent_session_id, s.fork_sequence, s.shared_sequence,
           s.hold_until, s.held_by_run
      INTO session_id, agent_id, user_id, display_name, last_sequence, session_metadata, session_create_time,
           update_time, expire_time, close_time, archive_time, version, parent_session_id, fork_sequence, shared, until, holder
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        outcome := 'SESSION_NOT_FOUND';
        RETURN NEXT;
        RETURN;
    END IF;
    moment := clock_timestamp();
    SELECT * INTO kept FROM session.recall_step(tenant, run, step);
    IF FOUND THEN
        IF kept.kept_session <> target OR kept.kept_role <> 'user' THEN
            outcome := 'STEP_ELSEWHERE';
            RETURN NEXT;
            RETURN;
        END IF;
        upto := kept.kept_last;
        IF holder = run THEN
            -- One that expired while the hold had lapsed lives again, and may expire again.
            UPDATE session.sessions s SET hold_until = greatest(s.hold_until, moment + hold), expiry_told_time = NULL
             WHERE s.tenant_id = tenant AND s.session_id = target
            RETURNING s.hold_until, s.updated_at INTO until, update_time;
        END IF;
        status := session.status_of(close_time, expire_time, until, moment, archive_time);
    ELSE
        status := session.status_of(close_time, expire_time, until, moment, archive_time);
        IF status <> 'active' THEN
            outcome := 'SESSION_NOT_ACTIVE';
        ELSIF holder <> run AND until > moment THEN
            outcome := 'SESSION_HELD';
        END IF;
        IF outcome IS NOT NULL THEN
            RETURN NEXT;
            RETURN;
        END IF;
        UPDATE session.sessions s
           SET last_sequence = s.last_sequence + 1, held_by_run = run, hold_until = moment + hold
         WHERE s.tenant_id = tenant AND s.session_id = target
        RETURNING s.last_sequence, s.updated_at INTO upto, update_time;
        last_sequence := upto;
        INSERT INTO session.messages AS m
               (tenant_id, session_id, run_id, sequence, create_time, step_sequence, token_count, byte_count,
                step_place, role, author, parts, metadata)
        VALUES (tenant, target, run, upto, moment, step, tokens, size, 0, 'user', new_author, new_parts, extra);
    END IF;
    outcome := 'OK';
    SELECT s.summary_id, s.run_id, s.first_sequence, s.last_sequence, s.token_count, s.model, s.content, s.create_time
      INTO summary_id, summary_run_id, summary_first, summary_last, summary_tokens, summary_model, summary_text,
           summary_time
      FROM session.newest_summary(tenant, target, upto - 1) s;
    RETURN NEXT;
    RETURN QUERY
    SELECT NULL::text, NULL::uuid, NULL::uuid, NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::bigint,
           NULL::jsonb, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz,
           NULL::bigint, NULL::uuid, NULL::bigint,
           NULL::uuid, NULL::uuid, NULL::bigint, NULL::bigint, NULL::integer, NULL::text, NULL::text, NULL::timestamptz,
           w.*
      FROM session.read_window(tenant, target, shared, upto, token_budget, most, most_bytes) w;
END $$;

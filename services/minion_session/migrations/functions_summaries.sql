-- Summaries: what messages up to a place come to, kept beside them.

-- Saves a summary under the session's lock, which puts summaries in order among themselves and among messages; or finds
-- what the step saved before. OK, SESSION_NOT_FOUND, SEQUENCE_OUT_OF_RANGE (`last` is then the session's last), or
-- STEP_ELSEWHERE: the step saved another session's.
CREATE OR REPLACE FUNCTION session.save_summary(
    tenant uuid, target uuid, new_id uuid, first bigint, last bigint, tokens integer, new_model text, new_content text,
    run uuid, step integer,
    OUT outcome text, OUT status text, OUT last_sequence bigint, OUT saved_place integer
) LANGUAGE plpgsql AS $$
DECLARE
    kept record;
BEGIN
    SELECT s.last_sequence, session.status_of(s.close_time, s.expire_time, s.hold_until, now())
      INTO last_sequence, status
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        outcome := 'SESSION_NOT_FOUND';
        RETURN;
    END IF;
    IF run IS NOT NULL THEN
        SELECT s.session_id, s.place INTO kept
          FROM session.summaries s
         WHERE s.tenant_id = tenant AND s.run_id = run AND s.step_sequence = step;
        IF FOUND THEN
            outcome := CASE WHEN kept.session_id = target THEN 'OK' ELSE 'STEP_ELSEWHERE' END;
            saved_place := kept.place;
            RETURN;
        END IF;
    END IF;
    IF status = 'archived' THEN
        outcome := 'SESSION_STATUS_FORBIDS';
        RETURN;
    END IF;
    IF last > last_sequence THEN
        outcome := 'SEQUENCE_OUT_OF_RANGE';
        RETURN;
    END IF;
    SELECT coalesce(max(s.place), 0) + 1 INTO saved_place
      FROM session.summaries s
     WHERE s.tenant_id = tenant AND s.session_id = target;
    INSERT INTO session.summaries
           (tenant_id, session_id, summary_id, run_id, first_sequence, last_sequence, saved_after, create_time, place,
            step_sequence, token_count, model, content)
    VALUES (tenant, target, new_id, run, first, last, save_summary.last_sequence, clock_timestamp(), saved_place, step,
            tokens, new_model, new_content);
    outcome := 'OK';
END $$;

-- name: user_of_session
-- Whose a session is.
SELECT s.user_id FROM session.sessions s WHERE s.tenant_id = $1 AND s.session_id = $2;

-- name: lock_for_fork
-- Locks a session that is to be forked, and who holds the fork's last message; a row of NULLs when there is none.
SELECT * FROM session.lock_for_fork($1, $2, $3);

-- name: list_exchanges
-- Which calls the messages between two places make, and which they answer.
-- What others say isn't looked at.
SELECT m.sequence, m.role,
       ARRAY(SELECT p -> 'call' ->> 'id'
               FROM jsonb_array_elements(CASE m.role WHEN 'assistant' THEN m.parts ELSE '[]' END) p
              WHERE p ? 'call') AS calls,
       ARRAY(SELECT p -> 'result' ->> 'id'
               FROM jsonb_array_elements(CASE m.role WHEN 'tool' THEN m.parts ELSE '[]' END) p
              WHERE p ? 'result') AS results
  FROM session.read_stretch($1, $2, $3, $4) m
 ORDER BY m.sequence;

-- name: fork_session
-- Opens the fork of a session that is locked; false when its id is taken.
SELECT session.fork_session($1, $2, $3, $4, $5, $6, $7);

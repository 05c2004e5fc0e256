-- name: save_summary
-- Saves a summary, or finds what its step saved, or says why not.
SELECT * FROM session.save_summary($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: get_summary
-- The summary at a place of its session.
SELECT s.summary_id, s.session_id, s.first_sequence, s.last_sequence, s.content, s.token_count, s.model, s.run_id,
       s.create_time, s.place
  FROM session.summaries s
 WHERE s.tenant_id = $1 AND s.session_id = $2 AND s.place = $3;

-- name: list_summaries
-- A session's summaries before a place, newest first, with the bytes that they take up to each; one row of NULLs when
-- there are none, no row when there is no session.
SELECT m.summary_id, m.session_id, m.first_sequence, m.last_sequence, m.content, m.token_count, m.model, m.run_id,
       m.create_time, m.place, m.bytes
  FROM session.sessions s
  LEFT JOIN LATERAL (
       SELECT found.*, sum(1024 + octet_length(found.content)) OVER (ORDER BY found.place DESC) AS bytes
         FROM (SELECT own.* FROM session.summaries own
                WHERE own.tenant_id = s.tenant_id AND own.session_id = s.session_id AND own.place < $3
                ORDER BY own.place DESC LIMIT $4) found
       ) m ON true
 WHERE s.tenant_id = $1 AND s.session_id = $2
 ORDER BY m.place DESC;

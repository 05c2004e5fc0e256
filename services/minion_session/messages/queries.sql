-- name: append_messages
-- Appends one batch, or finds where it was appended before, or says why not.
SELECT * FROM session.append_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: list_messages
-- A page of messages after the session's last sequence; no row when there is no session. A message that is one text, as
-- most are, comes as that, with no parts: it needs no JSON then. OFFSET 0, so that the text is taken out once.
SELECT last_sequence, sequence, role, author, text, CASE WHEN text IS NULL THEN parts END AS parts, token_count,
       microseconds, run_id, metadata
  FROM (SELECT *, CASE WHEN jsonb_array_length(parts) = 1 THEN parts -> 0 ->> 'text' END AS text,
               (extract(epoch FROM create_time) * 1000000)::bigint AS microseconds
          FROM session.list_messages($1, $2, $3, $4, $5, $6)
        OFFSET 0) AS page;

-- name: begin_turn
-- Appends the user's message, holds the session and reads the window of the context: the session, then messages.
SELECT * FROM session.begin_turn($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: end_turn
-- Releases a run's hold; false when there is no session.
SELECT session.end_turn($1, $2, $3);

-- name: missing_blob
-- The first of some blobs that a session hasn't; NULL when it has them all, or when there is no session.
SELECT session.missing_blob($1, $2, $3);

-- name: append_messages
-- Appends one batch, or finds where it was appended before, or says why not.
SELECT * FROM session.append_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: list_messages
-- A page of messages after the session's last sequence; no row when there is no session.
SELECT * FROM session.list_messages($1, $2, $3, $4, $5, $6);

-- name: begin_turn
-- Appends the user's message, holds the session and reads the window of the context: the session, then messages.
SELECT * FROM session.begin_turn($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: end_turn
-- Releases a run's hold; false when there is no session.
SELECT session.end_turn($1, $2, $3);

-- name: missing_blob
-- The first of some blobs that a session hasn't; NULL when it has them all, or when there is no session.
SELECT session.missing_blob($1, $2, $3);

-- name: get_context
-- A session, its newest summary, and the window that its context is cut from.
SELECT * FROM session.get_context($1, $2, $3, $4, $5);

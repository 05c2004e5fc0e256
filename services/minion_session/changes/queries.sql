-- name: begin_activity_round
-- Begins a round of telling, where none began within a time; no row otherwise.
SELECT * FROM session.begin_activity_round($1);

-- name: pick_active
-- Sessions of all tenants with messages that were not told.
SELECT * FROM session.pick_active($1, $2);

-- name: tell_active
-- Tells that sessions of a tenant are active; gives of how many it was news.
SELECT session.tell_active($1, $2);

-- name: end_activity_round
-- Notes until when all messages were told.
SELECT session.end_activity_round($1);

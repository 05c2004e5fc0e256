-- name: record_activities
-- Stores a batch; how many of its rows were new.
SELECT activity.record_activities($1, $2, $3);

-- name: get_activity
-- An activity, if there is one.
SELECT * FROM activity.get_activity($1, $2);

-- name: list_activities
-- Activities before a place in the list, newest first.
SELECT * FROM activity.list_activities($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: get_agent_stats
-- What an agent did, or some of its revisions: all together, then the newest of them.
SELECT * FROM activity.get_agent_stats($1, $2, $3, $4, $5::bigint[], $6, $7);

-- name: make_partitions
-- Makes the partitions of this month and the next ones, as the owner; the months of those that were missing.
SELECT make_partitions AS month FROM activity.make_partitions($1);

-- name: erase_subject
-- Deletes a part of what is kept of a user; says what went, and whether that was all.
SELECT * FROM memory.erase_subject($1, $2, $3);

-- name: pick_outlived
-- The tenants that have memories of a type that last changed before a time.
SELECT pick_outlived AS tenant_id FROM memory.pick_outlived($1, now() - $2::interval, $3);

-- name: prune_outlived
-- Deletes a part of a tenant's memories of a type that last changed before a time; says how many went.
SELECT memory.prune_outlived($1, $2, now() - $3::interval, $4);

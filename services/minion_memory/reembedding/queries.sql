-- name: begin_reembedding
-- Begins a move, unless one is under way.
SELECT memory.begin_reembedding($1, $2, $3, $4, $5);

-- name: get_reembedding
-- A move as it is now, or no row.
SELECT * FROM memory.get_reembedding($1, $2);

-- name: lease_reembedding
-- Leases a move that nobody works at, of any tenant.
SELECT tenant_id, reembedding_id, epoch FROM memory.lease_reembedding($1);

-- name: read_reembedding
-- What a worker must know of the move that it leased; no row when it lost it.
SELECT target, principal, failure_count, stuck FROM memory.read_reembedding($1, $2, $3);

-- name: pick_reembedding
-- The pass's next memories without the new vector.
SELECT memory_id, content, digest FROM memory.pick_reembedding($1, $2, $3, $4, $5);

-- name: place_reembedding
-- Places a batch of new vectors; false when the lease is lost.
SELECT memory.place_reembedding($1, $2, $3, $4, $5, $6, $7);

-- name: close_reembedding
-- Keeps writers out for a moment; false when the lease is lost.
SELECT memory.close_reembedding($1, $2, $3, $4);

-- name: end_pass
-- Ends a pass, and the move where no memory lacks the new vector.
SELECT memory.end_pass($1, $2, $3, $4);

-- name: defer_reembedding
-- Lets go of a move for a while.
SELECT memory.defer_reembedding($1, $2, $3, $4, $5);

-- name: fail_reembedding
-- Gives a move up.
SELECT memory.fail_reembedding($1, $2, $3, $4);

-- name: pick_unembedded
-- Picks memories that have no vector and are due, of all tenants.
SELECT tenant_id, memory_id FROM memory.pick_unembedded($1);

-- name: read_unembedded
-- What is to be embedded of a tenant's memories that were picked.
SELECT memory_id, content, digest FROM memory.read_unembedded($1, $2, $3);

-- name: place_unembedded
-- Gives memories that were stored without a vector theirs; returns how many got it.
SELECT memory.place_unembedded($1, $2, $3, $4, $5);

-- name: return_unembedded
-- Gives memories back that were picked and not tried.
SELECT memory.return_unembedded($1, $2, $3);

-- name: lease_summaries
-- Leases jobs that nobody works on.
SELECT tenant_id, session_id FROM gateway.lease_summaries($1, $2, $3);

-- name: renew_summaries
-- Renews leases; those not returned are lost.
SELECT tenant_id, session_id FROM gateway.renew_summaries($1, $2, $3, $4, $5);

-- name: release_summaries
-- Gives all jobs of a replica back.
SELECT gateway.release_summaries($1);

-- name: read_summary_job
-- A job that a replica has leased.
SELECT * FROM gateway.read_summary_job($1, $2, $3);

-- name: advance_summary
-- Moves a job on by one change; false to a ghost.
SELECT gateway.advance_summary($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: defer_summary
-- Puts a job off.
SELECT gateway.defer_summary($1, $2, $3, $4);

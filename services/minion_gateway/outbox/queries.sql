-- name: record_audit
-- Records audit rows outside any run.
SELECT gateway.record_audit($1, $2);

-- name: claim_outbox
-- Takes audit rows that are due.
SELECT tenant_id, activity_id FROM gateway.claim_outbox($1, $2);

-- name: read_outbox
-- Audit rows of a tenant.
SELECT activity_id, principal, payload FROM gateway.read_outbox($1, $2);

-- name: delete_outbox
-- Deletes rows that were acknowledged.
SELECT gateway.delete_outbox($1, $2);

-- name: defer_outbox
-- Puts rows off.
SELECT gateway.defer_outbox($1, $2, $3, $4);

-- name: outbox_lag
-- How many rows wait, and for how long.
SELECT waiting, seconds FROM gateway.outbox_lag();

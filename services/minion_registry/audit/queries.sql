-- name: record_audit
-- Writes audit rows of a tenant down, to be sent on.
SELECT registry.record_audit($1, $2);

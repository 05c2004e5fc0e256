-- name: record_audit
-- Records audit rows outside any run.
SELECT gateway.record_audit($1, $2);

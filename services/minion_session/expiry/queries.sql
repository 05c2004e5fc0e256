-- name: cleanup_expired_sessions
-- Cleans up the sessions of the transaction's tenant.
SELECT expired, deleted FROM session.cleanup_expired_sessions($1, $2);

-- name: tenants_to_clean
-- Tenants in which there is something to clean up.
SELECT tenant_id FROM session.tenants_to_clean($1, $2);

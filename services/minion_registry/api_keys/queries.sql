-- name: insert_api_key
-- Makes a key; it expires so long after now as $6 says, or never.
INSERT INTO registry.api_keys (tenant_id, api_key_id, display_name, prefix, digest, expire_time)
     VALUES ($1, $2, $3, $4, $5, now() + $6::interval)
  RETURNING api_key_id, display_name, prefix, create_time, expire_time, revoke_time;

-- name: revoke_api_key
-- Revokes a key; one that was revoked before stays as it was.
   UPDATE registry.api_keys SET revoke_time = coalesce(revoke_time, now())
    WHERE tenant_id = $1 AND api_key_id = $2
RETURNING api_key_id, display_name, prefix, create_time, expire_time, revoke_time;

-- name: verify_credential
-- Whose valid key a digest is, across all tenants.
SELECT tenant_id, api_key_id, expire_time FROM registry.verify_credential($1);

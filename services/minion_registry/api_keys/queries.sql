-- name: insert_api_key
-- Makes a key; it expires so long after now as $6 says, or never.
INSERT INTO registry.api_keys (tenant_id, api_key_id, display_name, prefix, digest, expire_time, scopes,
                               replaces_api_key_id)
     VALUES ($1, $2, $3, $4, $5, now() + $6::interval, $7, $8)
  RETURNING api_key_id, display_name, prefix, create_time, expire_time, revoke_time, scopes, replaces_api_key_id;

-- name: get_api_key
-- A key, locked: whoever rotates or revokes it meanwhile waits. With it the time by which it works or not, and for how
-- long it was made, whenever it ends since it was rotated; NULL is until it is revoked.
SELECT api_key_id, display_name, prefix, create_time, expire_time, revoke_time, scopes, replaces_api_key_id, now(),
       CASE WHEN isfinite(coalesce(first_expire_time, expire_time))
            THEN coalesce(first_expire_time, expire_time) - create_time END AS made_for
  FROM registry.api_keys
 WHERE tenant_id = $1 AND api_key_id = $2
   FOR UPDATE;

-- name: list_api_keys
-- The keys before one, newest first.
SELECT api_key_id, display_name, prefix, create_time, expire_time, revoke_time, scopes, replaces_api_key_id
  FROM registry.api_keys
 WHERE tenant_id = $1 AND (create_time, api_key_id) < ($2, $3)
 ORDER BY create_time DESC, api_key_id DESC LIMIT $4;

-- name: retire_api_key
-- Lets a key work for $2 more, and no longer than it would have.
SELECT registry.retire_api_key($1, $2);

-- name: revoke_api_key
-- Revokes a key; one that was revoked before stays as it was.
   UPDATE registry.api_keys SET revoke_time = coalesce(revoke_time, now())
    WHERE tenant_id = $1 AND api_key_id = $2
RETURNING api_key_id, display_name, prefix, create_time, expire_time, revoke_time, scopes, replaces_api_key_id;

-- name: verify_credential
-- Whose valid key a digest is, across all tenants, what it may do, and whether the tenant's credentials work.
SELECT tenant_id, api_key_id, expire_time, scopes, tenant_status FROM registry.verify_api_key($1);

-- name: tenant_status
-- Whether a tenant's credentials work; NULL where there is no such tenant.
SELECT registry.tenant_status($1);

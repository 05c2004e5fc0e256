-- name: create_tenant
-- Makes a tenant, through the owner's function.
SELECT tenant_id, name, display_name, create_time FROM registry.create_tenant($1, $2, $3);

-- name: create_tenant
-- Makes a tenant, through the owner's function.
SELECT tenant_id, name, display_name, create_time FROM registry.create_tenant($1, $2, $3);

-- name: find_tenant
-- A tenant by its id, or else by its name.
SELECT tenant_id, name, display_name, create_time, updated_at, status, suspend_reason, suspend_time
  FROM registry.find_tenant($1, $2);

-- name: list_tenants
-- The tenants after a name, by name; of one status, or of any.
SELECT tenant_id, name, display_name, create_time, updated_at, status, suspend_reason, suspend_time
  FROM registry.list_tenants($1, $2, $3);

-- name: suspend_tenant
-- Suspends a tenant; one that is suspended stays as it was. What this transaction changed is of its time.
SELECT tenant_id, name, display_name, create_time, updated_at, status, suspend_reason, suspend_time,
       updated_at = now() AS is_changed
  FROM registry.suspend_tenant($1, $2);

-- name: resume_tenant
-- Lets a suspended tenant's credentials work again; one that is not suspended stays as it was.
SELECT tenant_id, name, display_name, create_time, updated_at, status, suspend_reason, suspend_time,
       updated_at = now() AS is_changed
  FROM registry.resume_tenant($1);

-- Who may call, across tenants; what operators do with tenants, of which the app role sees its own alone; and the one
-- way by which a key's end comes nearer.

-- Whose key a digest is, across all tenants: nothing else of the row, and valid keys alone.
CREATE OR REPLACE FUNCTION registry.verify_api_key(key_digest bytea)
RETURNS TABLE (tenant_id uuid, api_key_id uuid, expire_time timestamptz, scopes text[], tenant_status text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.tenant_id, k.api_key_id, k.expire_time, k.scopes, t.status
      FROM registry.api_keys k JOIN registry.tenants t ON t.tenant_id = k.tenant_id
     WHERE k.digest = key_digest AND k.revoke_time IS NULL AND (k.expire_time IS NULL OR k.expire_time > now());
$$;

-- Whether a tenant's credentials work; NULL where there is no such tenant.
CREATE OR REPLACE FUNCTION registry.tenant_status(tenant uuid)
RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.status FROM registry.tenants t WHERE t.tenant_id = tenant;
$$;

-- A tenant by its id, or else by its name.
CREATE OR REPLACE FUNCTION registry.find_tenant(tenant uuid, tenant_name text)
RETURNS TABLE (tenant_id uuid, name text, display_name text, create_time timestamptz, updated_at timestamptz,
               status text, suspend_reason text, suspend_time timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.tenant_id, t.name, t.display_name, t.create_time, t.updated_at, t.status, t.suspend_reason, t.suspend_time
      FROM registry.tenants t WHERE t.tenant_id = tenant
    UNION ALL
    SELECT t.tenant_id, t.name, t.display_name, t.create_time, t.updated_at, t.status, t.suspend_reason, t.suspend_time
      FROM registry.tenants t WHERE tenant IS NULL AND t.name = tenant_name;
$$;

-- The tenants whose names come after one, by name; of one status, or of any where it is NULL.
CREATE OR REPLACE FUNCTION registry.list_tenants(after text, wanted_status text, most integer)
RETURNS TABLE (tenant_id uuid, name text, display_name text, create_time timestamptz, updated_at timestamptz,
               status text, suspend_reason text, suspend_time timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Two statements, so that each has an index that gives its order.
    IF wanted_status IS NULL THEN
        RETURN QUERY
        SELECT t.tenant_id, t.name, t.display_name, t.create_time, t.updated_at, t.status, t.suspend_reason,
               t.suspend_time
          FROM registry.tenants t WHERE t.name > after ORDER BY t.name LIMIT most;
    ELSE
        RETURN QUERY
        SELECT t.tenant_id, t.name, t.display_name, t.create_time, t.updated_at, t.status, t.suspend_reason,
               t.suspend_time
          FROM registry.tenants t WHERE t.status = wanted_status AND t.name > after ORDER BY t.name LIMIT most;
    END IF;
END $$;

-- Suspends a tenant and gives it; one that is suspended stays as it was.
CREATE OR REPLACE FUNCTION registry.suspend_tenant(tenant uuid, why text)
RETURNS TABLE (tenant_id uuid, name text, display_name text, create_time timestamptz, updated_at timestamptz,
               status text, suspend_reason text, suspend_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE registry.tenants t SET status = 'suspended', suspend_reason = why, suspend_time = now()
     WHERE t.tenant_id = tenant AND t.status = 'active';
    RETURN QUERY SELECT * FROM registry.find_tenant(tenant, NULL);
END $$;

-- Lets a suspended tenant's credentials work again and gives it; one that is not suspended stays as it was.
CREATE OR REPLACE FUNCTION registry.resume_tenant(tenant uuid)
RETURNS TABLE (tenant_id uuid, name text, display_name text, create_time timestamptz, updated_at timestamptz,
               status text, suspend_reason text, suspend_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE registry.tenants t SET status = 'active', suspend_reason = '', suspend_time = NULL
     WHERE t.tenant_id = tenant AND t.status = 'suspended';
    RETURN QUERY SELECT * FROM registry.find_tenant(tenant, NULL);
END $$;

-- Lets a key of the transaction's tenant work for a while more, and no longer than it would have; what it was made for
-- stays known.
CREATE OR REPLACE FUNCTION registry.retire_api_key(api_key uuid, overlap interval)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE registry.api_keys k
       SET first_expire_time = coalesce(k.first_expire_time, k.expire_time, 'infinity'),
           expire_time = least(k.expire_time, now() + overlap)
     WHERE k.tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid AND k.api_key_id = api_key;
    RETURN FOUND;
END $$;

-- Keys may all again, and nobody is suspended.
ALTER TABLE registry.api_keys DROP COLUMN scopes, DROP COLUMN replaces_api_key_id;
ALTER TABLE registry.tenants
    DROP CONSTRAINT tenants_suspended, DROP CONSTRAINT tenants_suspend_reason,
    DROP COLUMN status, DROP COLUMN suspend_reason, DROP COLUMN suspend_time;

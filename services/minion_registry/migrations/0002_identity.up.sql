-- Tenants that can be suspended; keys with scopes, that take each other's place. 0007 looks whether the rows that are
-- there keep to the rules, and builds the indexes: neither holds the tables.

ALTER TABLE registry.tenants
    ADD COLUMN status         text NOT NULL DEFAULT 'active',
    ADD COLUMN suspend_reason text NOT NULL DEFAULT '',
    ADD COLUMN suspend_time   timestamptz,
    ADD CONSTRAINT tenants_status_check CHECK (status IN ('active', 'suspended')) NOT VALID,
    ADD CONSTRAINT tenants_suspended CHECK ((status = 'suspended') = (suspend_time IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT tenants_suspend_reason CHECK ((status = 'suspended') = (suspend_reason <> '')) NOT VALID;

-- Keys from before may do all that they could; scopes change never.
ALTER TABLE registry.api_keys
    ADD COLUMN scopes              text[] NOT NULL DEFAULT '{*}',
    ADD COLUMN replaces_api_key_id uuid,
    ADD CONSTRAINT api_keys_scopes_check CHECK (cardinality(scopes) BETWEEN 1 AND 50) NOT VALID;
GRANT SELECT (scopes, replaces_api_key_id) ON registry.api_keys TO minion_registry_app;

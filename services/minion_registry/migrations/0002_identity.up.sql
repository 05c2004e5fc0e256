-- Tenants that can be suspended; keys with scopes, that take each other's place.

ALTER TABLE registry.tenants
    ADD COLUMN status         text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    ADD COLUMN suspend_reason text NOT NULL DEFAULT '',
    ADD COLUMN suspend_time   timestamptz,
    ADD CONSTRAINT tenants_suspended CHECK ((status = 'suspended') = (suspend_time IS NOT NULL)),
    ADD CONSTRAINT tenants_suspend_reason CHECK ((status = 'suspended') = (suspend_reason <> ''));
CREATE INDEX tenants_status ON registry.tenants (status, name);

-- Keys from before may do all that they could; scopes change never.
ALTER TABLE registry.api_keys
    ADD COLUMN scopes              text[] NOT NULL DEFAULT '{*}' CHECK (cardinality(scopes) BETWEEN 1 AND 50),
    ADD COLUMN replaces_api_key_id uuid;
CREATE INDEX api_keys_create_time ON registry.api_keys (tenant_id, create_time DESC, api_key_id DESC);
GRANT SELECT (scopes, replaces_api_key_id) ON registry.api_keys TO minion_registry_app;

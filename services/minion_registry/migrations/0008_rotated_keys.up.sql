-- When a key was made to expire, of those that were rotated: 'infinity' means never. NULL where `expire_time` still says
-- so, and in keys that were rotated before this column was there.
ALTER TABLE registry.api_keys ADD COLUMN first_expire_time timestamptz;
GRANT SELECT (first_expire_time) ON registry.api_keys TO minion_registry_app;

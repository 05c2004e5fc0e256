-- no-transaction
-- What was filled in stays: it goes with the tables and columns that hold it.
DROP INDEX CONCURRENTLY IF EXISTS registry.tools_status;
DROP INDEX CONCURRENTLY IF EXISTS registry.api_keys_create_time;
DROP INDEX CONCURRENTLY IF EXISTS registry.tenants_status;

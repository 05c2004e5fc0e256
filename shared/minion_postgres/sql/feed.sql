-- What a service's schema needs for a change feed. Two parts, copied as those of idempotency.sql are:
-- `minion_postgres.feed.table_sql(schema)` and `functions_sql(schema)` print them with the names filled in.
--
-- A writer inserts (tenant_id, resource_id, kind) in the transaction that makes the change, nothing else.

-- part: table
CREATE TABLE {schema}.{feed} (
    tenant_id   uuid        NOT NULL,
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    resource_id uuid        NOT NULL,
    kind        text        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, xid, id)
);
CREATE INDEX {feed}_order ON {schema}.{feed} (xid, id) INCLUDE (tenant_id);
CREATE INDEX {feed}_create_time ON {schema}.{feed} USING brin (create_time);
ALTER TABLE {schema}.{feed} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.{feed} FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON {schema}.{feed} TO minion_{schema}_owner USING (true);
CREATE POLICY app ON {schema}.{feed} TO minion_{schema}_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON {schema}.{feed} TO minion_{schema}_app;

-- part: functions
-- The changes of a tenant after a cursor, in the order of their transactions. A transaction shows only once every one
-- that began to write before it has ended: so whoever commits late is not passed over.
CREATE OR REPLACE FUNCTION {schema}.read_{feed}(tenant uuid, after_xid xid8, after_id bigint, most integer)
RETURNS TABLE (xid xid8, id bigint, resource_id uuid, kind text, create_time timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
    SELECT c.xid, c.id, c.resource_id, c.kind, c.create_time
      FROM {schema}.{feed} c
     WHERE c.tenant_id = tenant AND (c.xid, c.id) > (after_xid, after_id)
       AND c.xid < pg_snapshot_xmin(pg_current_snapshot())
     ORDER BY c.xid, c.id LIMIT most;
END $$;

-- The changes of all tenants after a cursor, for services that keep something about every tenant: ids and kinds alone.
CREATE OR REPLACE FUNCTION {schema}.read_all_{feed}(after_xid xid8, after_id bigint, most integer)
RETURNS TABLE (tenant_id uuid, xid xid8, id bigint, resource_id uuid, kind text, create_time timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.tenant_id, c.xid, c.id, c.resource_id, c.kind, c.create_time
      FROM {schema}.{feed} c
     WHERE (c.xid, c.id) > (after_xid, after_id)
       AND c.xid < pg_snapshot_xmin(pg_current_snapshot())
     ORDER BY c.xid, c.id LIMIT most;
$$;

-- Deletes changes older than an age, of all tenants, at most so many at once; returns how many went. A watcher that
-- was away for longer than that age lists again; none younger than an hour goes, whatever the age.
CREATE OR REPLACE FUNCTION {schema}.purge_{feed}(age interval, most integer)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT tenant_id, xid, id FROM {schema}.{feed}
         WHERE create_time < now() - age AND create_time < now() - interval '1 hour'
         LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {schema}.{feed} f USING old
         WHERE f.tenant_id = old.tenant_id AND f.xid = old.xid AND f.id = old.id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- The change feed of sessions, as minion_postgres.feed prints it.

-- The changes of a tenant after a cursor, in the order of their transactions. A transaction shows only once every one
-- that began to write before it has ended: so whoever commits late is not passed over.
CREATE OR REPLACE FUNCTION session.read_changes(tenant uuid, after_xid xid8, after_id bigint, most integer)
RETURNS TABLE (xid xid8, id bigint, resource_id uuid, kind text, create_time timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
    SELECT c.xid, c.id, c.resource_id, c.kind, c.create_time
      FROM session.changes c
     WHERE c.tenant_id = tenant AND (c.xid, c.id) > (after_xid, after_id)
       AND c.xid < pg_snapshot_xmin(pg_current_snapshot())
     ORDER BY c.xid, c.id LIMIT most;
END $$;

-- The changes of all tenants after a cursor, for services that keep something about every tenant: ids and kinds alone.
CREATE OR REPLACE FUNCTION session.read_all_changes(after_xid xid8, after_id bigint, most integer)
RETURNS TABLE (tenant_id uuid, xid xid8, id bigint, resource_id uuid, kind text, create_time timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.tenant_id, c.xid, c.id, c.resource_id, c.kind, c.create_time
      FROM session.changes c
     WHERE (c.xid, c.id) > (after_xid, after_id)
       AND c.xid < pg_snapshot_xmin(pg_current_snapshot())
     ORDER BY c.xid, c.id LIMIT most;
$$;

-- Deletes changes older than an age, of all tenants, at most so many at once; returns how many went. A watcher that
-- was away for longer than that age lists again; none younger than an hour goes, whatever the age.
CREATE OR REPLACE FUNCTION session.purge_changes(age interval, most integer)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT tenant_id, xid, id FROM session.changes
         WHERE create_time < now() - age AND create_time < now() - interval '1 hour'
         LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM session.changes f USING old
         WHERE f.tenant_id = old.tenant_id AND f.xid = old.xid AND f.id = old.id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

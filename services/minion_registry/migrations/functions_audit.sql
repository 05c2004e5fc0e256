-- The audit's way to the activity service.

-- Writes audit rows of a tenant down. What operators do to a tenant runs in no tenant's transaction, and is told to that
-- tenant all the same.
CREATE OR REPLACE FUNCTION registry.record_audit(tenant uuid, audit json)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    concerned text := current_setting('minion.tenant', true);
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    INSERT INTO registry.outbox (tenant_id, activity_id, principal, payload)
    SELECT tenant, a.activity_id, a.principal, a.payload
      FROM json_to_recordset(audit) AS a(activity_id uuid, principal text, payload json);
    PERFORM set_config('minion.tenant', concerned, true);
END $$;

-- Copied from minion_audit: outbox.functions_sql("registry").

-- Takes audit rows of any tenant that are due, oldest first, and keeps other replicas off them for a while.
CREATE OR REPLACE FUNCTION registry.claim_outbox(most integer, hold interval)
RETURNS TABLE (tenant_id uuid, activity_id uuid)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE registry.outbox o SET due_time = now() + hold
      FROM (SELECT due.tenant_id, due.activity_id FROM registry.outbox due
             WHERE due.due_time <= now()
             ORDER BY due.due_time LIMIT most FOR UPDATE SKIP LOCKED) picked
     WHERE o.tenant_id = picked.tenant_id AND o.activity_id = picked.activity_id
    RETURNING o.tenant_id, o.activity_id;
$$;

-- Reads audit rows of a tenant.
CREATE OR REPLACE FUNCTION registry.read_outbox(tenant uuid, ids uuid[])
RETURNS TABLE (activity_id uuid, principal text, payload json) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT o.activity_id, o.principal, o.payload FROM registry.outbox o
                  WHERE o.tenant_id = tenant AND o.activity_id = ANY (ids) ORDER BY o.activity_id;
END $$;

-- Deletes audit rows of a tenant that were acknowledged.
CREATE OR REPLACE FUNCTION registry.delete_outbox(tenant uuid, ids uuid[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    DELETE FROM registry.outbox WHERE tenant_id = tenant AND activity_id = ANY (ids);
END $$;

-- Puts audit rows of a tenant off; `refused` says that they were refused for what they are.
CREATE OR REPLACE FUNCTION registry.defer_outbox(tenant uuid, ids uuid[], pause interval, refused boolean)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE registry.outbox SET due_time = now() + pause, refusals = refusals + CASE WHEN refused THEN 1 ELSE 0 END
     WHERE tenant_id = tenant AND activity_id = ANY (ids);
END $$;

-- How many audit rows wait, of all tenants, and for how many seconds the oldest has.
CREATE OR REPLACE FUNCTION registry.outbox_lag()
RETURNS TABLE (waiting bigint, seconds double precision)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*), coalesce(extract(epoch FROM now() - min(create_time)), 0)::double precision FROM registry.outbox;
$$;

-- What a service's schema needs for an outbox of the audit. Two parts, copied as those of minion_postgres are:
-- `minion_audit.outbox.table_sql(schema)` and `functions_sql(schema)` print them with the name filled in;
-- row-level security and its policies are those of the schema's other tenant tables.
--
-- A writer inserts (tenant_id, activity_id, principal, payload) in the transaction of what the row tells of.

-- part: table
CREATE TABLE {schema}.outbox (
    tenant_id   uuid        NOT NULL,
    activity_id uuid        NOT NULL,
    principal   text        NOT NULL,
    payload     json        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    due_time    timestamptz NOT NULL DEFAULT now(),
    refusals    integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, activity_id)
);
CREATE INDEX outbox_due ON {schema}.outbox (due_time);

-- part: functions
-- Takes audit rows of any tenant that are due, oldest first, and keeps other replicas off them for a while.
CREATE OR REPLACE FUNCTION {schema}.claim_outbox(most integer, hold interval)
RETURNS TABLE (tenant_id uuid, activity_id uuid)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE {schema}.outbox o SET due_time = now() + hold
      FROM (SELECT due.tenant_id, due.activity_id FROM {schema}.outbox due
             WHERE due.due_time <= now()
             ORDER BY due.due_time LIMIT most FOR UPDATE SKIP LOCKED) picked
     WHERE o.tenant_id = picked.tenant_id AND o.activity_id = picked.activity_id
    RETURNING o.tenant_id, o.activity_id;
$$;

-- Reads audit rows of a tenant.
CREATE OR REPLACE FUNCTION {schema}.read_outbox(tenant uuid, ids uuid[])
RETURNS TABLE (activity_id uuid, principal text, payload json) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT o.activity_id, o.principal, o.payload FROM {schema}.outbox o
                  WHERE o.tenant_id = tenant AND o.activity_id = ANY (ids) ORDER BY o.activity_id;
END $$;

-- Deletes audit rows of a tenant that were acknowledged.
CREATE OR REPLACE FUNCTION {schema}.delete_outbox(tenant uuid, ids uuid[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    DELETE FROM {schema}.outbox WHERE tenant_id = tenant AND activity_id = ANY (ids);
END $$;

-- Puts audit rows of a tenant off; `refused` says that they were refused for what they are.
CREATE OR REPLACE FUNCTION {schema}.defer_outbox(tenant uuid, ids uuid[], pause interval, refused boolean)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE {schema}.outbox SET due_time = now() + pause, refusals = refusals + CASE WHEN refused THEN 1 ELSE 0 END
     WHERE tenant_id = tenant AND activity_id = ANY (ids);
END $$;

-- How many audit rows wait, of all tenants, and for how many seconds the oldest has.
CREATE OR REPLACE FUNCTION {schema}.outbox_lag()
RETURNS TABLE (waiting bigint, seconds double precision)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*), coalesce(extract(epoch FROM now() - min(create_time)), 0)::double precision FROM {schema}.outbox;
$$;

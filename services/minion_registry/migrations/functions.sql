-- The registry's functions; applied again whenever this file has changed.

-- Makes a tenant, of which the app role may have no row by itself. Operators alone get here: the service sees to that.
CREATE OR REPLACE FUNCTION registry.create_tenant(new_tenant uuid, new_name text, new_display_name text)
RETURNS TABLE (tenant_id uuid, name text, display_name text, create_time timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO registry.tenants AS t (tenant_id, name, display_name)
         VALUES (new_tenant, new_name, new_display_name)
    RETURNING t.tenant_id, t.name, t.display_name, t.create_time;
$$;

-- Whose key a digest is, across all tenants: nothing else of the row, and valid keys alone.
CREATE OR REPLACE FUNCTION registry.verify_credential(key_digest bytea)
RETURNS TABLE (tenant_id uuid, api_key_id uuid, expire_time timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.tenant_id, k.api_key_id, k.expire_time
      FROM registry.api_keys k
     WHERE k.digest = key_digest AND k.revoke_time IS NULL AND (k.expire_time IS NULL OR k.expire_time > now());
$$;

-- Deletes an agent of the transaction's tenant with all that hangs on it: the one way by which revisions go.
CREATE OR REPLACE FUNCTION registry.delete_agent(agent uuid)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM registry.agents a
     WHERE a.tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid
       AND a.agent_id = agent AND a.status IN ('draft', 'archived');
    RETURN FOUND;
END $$;

-- An agent by id, or else by name, with its tools by name as a JSON array: all that the gateway needs, in one round trip.
CREATE OR REPLACE FUNCTION registry.resolve_agent(tenant uuid, agent uuid, agent_name text)
RETURNS TABLE (
    agent_id uuid, name text, display_name text, description text, behavior_type text, instructions text, llm jsonb,
    capabilities text[], behavior jsonb, metadata jsonb, labels jsonb, status text, revision bigint, version bigint,
    create_time timestamptz, updated_at timestamptz, tools jsonb
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found uuid := agent;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    IF agent IS NULL THEN
        SELECT a.agent_id INTO found FROM registry.agents a WHERE a.tenant_id = tenant AND a.name = agent_name;
    END IF;
    RETURN QUERY
    SELECT a.agent_id, a.name, a.display_name, a.description, a.behavior_type, a.instructions, a.llm, a.capabilities,
           a.behavior, a.metadata, a.labels, a.status, a.revision, a.version, a.create_time, a.updated_at,
           coalesce((
               SELECT jsonb_agg(to_jsonb(t) - '{tenant_id,wire_bytes}'::text[] || jsonb_build_object(
                          'time_limit', extract(epoch FROM t.time_limit),
                          'configuration', b.configuration,
                          'bound_digest', b.bound_digest,
                          'bind_time', b.create_time) ORDER BY t.name)
                 FROM registry.agent_tools b
                 JOIN registry.tools t ON t.tenant_id = b.tenant_id AND t.tool_id = b.tool_id
                WHERE b.tenant_id = tenant AND b.agent_id = found), '[]'::jsonb)
      FROM registry.agents a
     WHERE a.tenant_id = tenant AND a.agent_id = found;
END $$;

-- Copied from minion_postgres: idempotency.functions_sql("registry") and feed.functions_sql("registry").

-- Claims a request for the running transaction. The first caller gets claimed = true and does the work; a repeat waits
-- for the first, then gets claimed = false and the first result. Another body or method raises MN409.
CREATE OR REPLACE FUNCTION registry.claim_request(
    tenant uuid, request uuid, request_method text, request_digest bytea, request_subject text,
    OUT claimed boolean, OUT first_result jsonb
) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO registry.idempotency_keys (tenant_id, request_id, method, digest, subject)
         VALUES (tenant, request, request_method, request_digest, request_subject)
    ON CONFLICT (tenant_id, request_id) DO NOTHING;
    claimed := FOUND;
    IF NOT claimed THEN
        first_result := registry.recall_request(tenant, request, request_method, request_digest);
    END IF;
END $$;

-- Keeps the result of a claimed request, in the transaction that claimed it.
CREATE OR REPLACE FUNCTION registry.record_result(tenant uuid, request uuid, request_result jsonb)
RETURNS void LANGUAGE sql AS $$
    UPDATE registry.idempotency_keys SET result = request_result WHERE tenant_id = tenant AND request_id = request;
$$;

-- The first result of a request; NULL when it is new. Another body or method raises MN409. VOLATILE on purpose: it must
-- see what was committed while the caller waited for a lock.
CREATE OR REPLACE FUNCTION registry.recall_request(
    tenant uuid, request uuid, request_method text, request_digest bytea
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    known registry.idempotency_keys;
BEGIN
    SELECT * INTO known FROM registry.idempotency_keys WHERE tenant_id = tenant AND request_id = request;
    IF FOUND AND (known.method <> request_method OR known.digest <> request_digest) THEN
        RAISE EXCEPTION 'REQUEST_ID_REUSED' USING ERRCODE = 'MN409',
            DETAIL = 'This request_id came before with another request.',
            HINT = jsonb_build_object('request_id', request)::text;
    END IF;
    RETURN known.result;
END $$;

-- Deletes keys older than an age, of all tenants, at most so many at once; returns how many went. None younger than an
-- hour, whatever the age: a request may still be tried again.
CREATE OR REPLACE FUNCTION registry.purge_requests(age interval, most integer)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT tenant_id, request_id FROM registry.idempotency_keys
         WHERE create_time < now() - age AND create_time < now() - interval '1 hour'
         LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM registry.idempotency_keys USING old
         WHERE idempotency_keys.tenant_id = old.tenant_id AND idempotency_keys.request_id = old.request_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- The changes of a tenant after a cursor, in the order of their transactions. A transaction shows only once every one
-- that began to write before it has ended: so whoever commits late is not passed over.
CREATE OR REPLACE FUNCTION registry.read_changes(tenant uuid, after_xid xid8, after_id bigint, most integer)
RETURNS TABLE (xid xid8, id bigint, resource_id uuid, kind text, create_time timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
    SELECT c.xid, c.id, c.resource_id, c.kind, c.create_time
      FROM registry.changes c
     WHERE c.tenant_id = tenant AND (c.xid, c.id) > (after_xid, after_id)
       AND c.xid < pg_snapshot_xmin(pg_current_snapshot())
     ORDER BY c.xid, c.id LIMIT most;
END $$;

-- The changes of all tenants after a cursor, for services that keep something about every tenant: ids and kinds alone.
CREATE OR REPLACE FUNCTION registry.read_all_changes(after_xid xid8, after_id bigint, most integer)
RETURNS TABLE (tenant_id uuid, xid xid8, id bigint, resource_id uuid, kind text, create_time timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.tenant_id, c.xid, c.id, c.resource_id, c.kind, c.create_time
      FROM registry.changes c
     WHERE (c.xid, c.id) > (after_xid, after_id)
       AND c.xid < pg_snapshot_xmin(pg_current_snapshot())
     ORDER BY c.xid, c.id LIMIT most;
$$;

-- Deletes changes older than an age, of all tenants, at most so many at once; returns how many went. A watcher that
-- was away for longer than that age lists again; none younger than an hour goes, whatever the age.
CREATE OR REPLACE FUNCTION registry.purge_changes(age interval, most integer)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT tenant_id, xid, id FROM registry.changes
         WHERE create_time < now() - age AND create_time < now() - interval '1 hour'
         LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM registry.changes f USING old
         WHERE f.tenant_id = old.tenant_id AND f.xid = old.xid AND f.id = old.id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

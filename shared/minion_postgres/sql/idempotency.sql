-- What a service's schema needs for idempotent writes. Two parts: the table goes into the schema's first migration,
-- the functions into its functions.sql; both by copy, with the schema's name in place of {schema}.
-- `minion_postgres.idempotency.table_sql(schema)` and `functions_sql(schema)` print them so, and a test of each service
-- asserts that its copies are these.

-- part: table
CREATE TABLE {schema}.idempotency_keys (
    tenant_id   uuid        NOT NULL,
    request_id  uuid        NOT NULL,
    method      text        NOT NULL,
    digest      bytea       NOT NULL,
    subject     text,       -- whose content the result holds, so that erasure reaches it
    result      jsonb,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, request_id)
) WITH (fillfactor = 80);
CREATE INDEX idempotency_keys_create_time ON {schema}.idempotency_keys USING brin (create_time);
CREATE INDEX idempotency_keys_subject ON {schema}.idempotency_keys (tenant_id, subject) WHERE subject IS NOT NULL;
ALTER TABLE {schema}.idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON {schema}.idempotency_keys TO minion_{schema}_owner USING (true);
CREATE POLICY app ON {schema}.idempotency_keys TO minion_{schema}_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.idempotency_keys TO minion_{schema}_app;

-- part: functions
-- Claims a request for the running transaction. The first caller gets claimed = true and does the work; a repeat waits
-- for the first, then gets claimed = false and the first result. Another body or method raises MN409.
CREATE OR REPLACE FUNCTION {schema}.claim_request(
    tenant uuid, request uuid, request_method text, request_digest bytea, request_subject text,
    OUT claimed boolean, OUT first_result jsonb
) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.idempotency_keys (tenant_id, request_id, method, digest, subject)
         VALUES (tenant, request, request_method, request_digest, request_subject)
    ON CONFLICT (tenant_id, request_id) DO NOTHING;
    claimed := FOUND;
    IF NOT claimed THEN
        first_result := {schema}.recall_request(tenant, request, request_method, request_digest);
    END IF;
END $$;

-- Keeps the result of a claimed request, in the transaction that claimed it.
CREATE OR REPLACE FUNCTION {schema}.record_result(tenant uuid, request uuid, request_result jsonb)
RETURNS void LANGUAGE sql AS $$
    UPDATE {schema}.idempotency_keys SET result = request_result WHERE tenant_id = tenant AND request_id = request;
$$;

-- The first result of a request; NULL when it is new. Another body or method raises MN409. VOLATILE on purpose: it must
-- see what was committed while the caller waited for a lock.
CREATE OR REPLACE FUNCTION {schema}.recall_request(
    tenant uuid, request uuid, request_method text, request_digest bytea
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    known {schema}.idempotency_keys;
BEGIN
    SELECT * INTO known FROM {schema}.idempotency_keys WHERE tenant_id = tenant AND request_id = request;
    IF FOUND AND (known.method <> request_method OR known.digest <> request_digest) THEN
        RAISE EXCEPTION 'REQUEST_ID_REUSED' USING ERRCODE = 'MN409',
            DETAIL = 'This request_id came before with another request.',
            HINT = jsonb_build_object('request_id', request)::text;
    END IF;
    RETURN known.result;
END $$;

-- Deletes keys older than an age, of all tenants, at most so many at once; returns how many went. None younger than an
-- hour, whatever the age: a request may still be tried again.
CREATE OR REPLACE FUNCTION {schema}.purge_requests(age interval, most integer)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT tenant_id, request_id FROM {schema}.idempotency_keys
         WHERE create_time < now() - age AND create_time < now() - interval '1 hour'
         LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {schema}.idempotency_keys USING old
         WHERE idempotency_keys.tenant_id = old.tenant_id AND idempotency_keys.request_id = old.request_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

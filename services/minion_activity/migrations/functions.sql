-- The activity service's functions. Those that serve a call set the tenant themselves and run as the caller, so that
-- row-level security stands behind every predicate written here.

-- Stores a batch, all or none, and returns how many rows were new: an id that is there already stays as it was. `batch`
-- is a JSON array of rows as read below. Rows go in by the order of their ids, so that two batches with the same ones
-- wait for each other and don't deadlock.
CREATE OR REPLACE FUNCTION activity.record_activities(tenant uuid, recorded_by text, batch json)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    stored integer;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    INSERT INTO activity.activities (
        tenant_id, activity_id, agent_id, session_id, run_id, start_time, duration_microseconds, agent_revision,
        input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_nanos, step_sequence, byte_count, kind,
        status, currency, name, user_id, principal, trace_id, error_reason, error_message, tools_used, input, output,
        metadata)
    SELECT tenant, activity_id, agent_id, session_id, run_id, start_time, duration_microseconds, agent_revision,
           input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_nanos, step_sequence, byte_count, kind,
           status, currency, name, user_id, recorded_by, trace_id, error_reason, error_message, tools_used, input,
           output, metadata
      FROM json_to_recordset(batch) AS new (
               activity_id uuid, agent_id uuid, session_id uuid, run_id uuid, start_time timestamptz,
               duration_microseconds bigint, agent_revision bigint, input_tokens bigint, output_tokens bigint,
               cached_tokens bigint, reasoning_tokens bigint, cost_nanos bigint, step_sequence integer,
               byte_count integer, kind text, status text, currency text, name text, user_id text, trace_id text,
               error_reason text, error_message text, tools_used text[], input jsonb, output jsonb, metadata jsonb)
     ORDER BY activity_id
    ON CONFLICT (tenant_id, activity_id) DO NOTHING;
    GET DIAGNOSTICS stored = ROW_COUNT;
    RETURN stored;
END $$;

-- Reads an activity; no row when there is none.
CREATE OR REPLACE FUNCTION activity.get_activity(tenant uuid, target uuid)
RETURNS SETOF activity.activities LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT a.* FROM activity.activities a WHERE a.tenant_id = tenant AND a.activity_id = target;
END $$;

-- The query of a list with these filters, so that each is planned with its values and on its own index. Its parameters
-- are those that list_activities gives it.
CREATE OR REPLACE FUNCTION activity.list_query(
    by_agent boolean, by_session boolean, by_run boolean, by_kind boolean, by_status boolean, by_start boolean
) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'SELECT a.* FROM activity.activities a WHERE a.tenant_id = $1'
        || CASE WHEN by_agent THEN ' AND a.agent_id = $2' ELSE '' END
        || CASE WHEN by_session THEN ' AND a.session_id = $3' ELSE '' END
        || CASE WHEN by_run THEN ' AND a.run_id = $4' ELSE '' END
        || CASE WHEN by_kind THEN ' AND a.kind = $5' ELSE '' END
        || CASE WHEN by_status THEN ' AND a.status = $6' ELSE '' END
        || CASE WHEN by_start THEN ' AND a.start_time >= $7' ELSE '' END
        || ' AND (a.start_time, a.activity_id) < ($8, $9) ORDER BY a.start_time DESC, a.activity_id DESC LIMIT $10';
$$;

-- The activities before a place in the list, newest first, at most so many; NULL filters match all, a NULL time is the
-- end of all. Ends with the first that takes the list beyond `most_bytes`, the very first aside: by how many rows there
-- are the caller knows whether more follow.
CREATE OR REPLACE FUNCTION activity.list_activities(
    tenant uuid, agent uuid, session uuid, run uuid, of_kind text, of_status text, from_time timestamptz,
    before_time timestamptz, before_id uuid, most_rows integer, most_bytes bigint
) RETURNS SETOF activity.activities LANGUAGE plpgsql AS $$
DECLARE
    found_row activity.activities;
    filled bigint := 0;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    FOR found_row IN EXECUTE activity.list_query(
                agent IS NOT NULL, session IS NOT NULL, run IS NOT NULL, of_kind IS NOT NULL, of_status IS NOT NULL,
                from_time IS NOT NULL)
            USING tenant, agent, session, run, of_kind, of_status, from_time, coalesce(before_time, 'infinity'),
                  before_id, most_rows LOOP
        RETURN NEXT found_row;
        filled := filled + found_row.byte_count;
        EXIT WHEN filled > most_bytes AND filled > found_row.byte_count;
    END LOOP;
END $$;

-- What an agent did in activities that began in [from_time, before_time): one row for all together, with agent_revision
-- NULL, and one for each revision known. Runs tell success, tokens, cost and duration, since a run's are the sums over
-- its calls. Sums beyond a bigint stay at its end. A price in another currency than dollars counts as not known.
CREATE OR REPLACE FUNCTION activity.sum_up(tenant uuid, agent uuid, from_time timestamptz, before_time timestamptz)
RETURNS TABLE (
    agent_revision bigint, run_count bigint, succeeded_count bigint, failed_count bigint, canceled_count bigint,
    tool_call_count bigint, llm_call_count bigint, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
    reasoning_tokens bigint, cost_nanos bigint, unpriced_run_count bigint, mean_microseconds bigint,
    p50_microseconds bigint, p95_microseconds bigint, last_run_time timestamptz
) LANGUAGE sql STABLE AS $$
    -- Apart, because each is read from an index of its own.
    WITH calls AS (
        SELECT a.agent_revision,
               count(*) FILTER (WHERE a.kind = 'tool_call') AS tool_call_count,
               count(*) FILTER (WHERE a.kind = 'llm_call') AS llm_call_count
          FROM activity.activities a
         WHERE a.tenant_id = tenant AND a.agent_id = agent
           AND a.start_time >= from_time AND a.start_time < before_time
         GROUP BY GROUPING SETS ((), (a.agent_revision))
        HAVING GROUPING(a.agent_revision) = 1 OR a.agent_revision > 0
    ), runs AS (
        SELECT a.agent_revision,
               count(*) AS run_count,
               count(*) FILTER (WHERE a.status = 'succeeded') AS succeeded_count,
               count(*) FILTER (WHERE a.status = 'failed') AS failed_count,
               count(*) FILTER (WHERE a.status = 'canceled') AS canceled_count,
               least(coalesce(sum(a.input_tokens), 0), 9223372036854775807)::bigint AS input_tokens,
               least(coalesce(sum(a.output_tokens), 0), 9223372036854775807)::bigint AS output_tokens,
               least(coalesce(sum(a.cached_tokens), 0), 9223372036854775807)::bigint AS cached_tokens,
               least(coalesce(sum(a.reasoning_tokens), 0), 9223372036854775807)::bigint AS reasoning_tokens,
               least(coalesce(sum(a.cost_nanos) FILTER (WHERE a.currency = 'USD'), 0), 9223372036854775807)::bigint
                   AS cost_nanos,
               count(*) FILTER (WHERE a.cost_nanos IS NULL OR a.currency <> 'USD') AS unpriced_run_count,
               avg(a.duration_microseconds)::bigint AS mean_microseconds,
               percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY a.duration_microseconds) AS percentiles,
               max(a.start_time) AS last_run_time
          FROM activity.activities a
         WHERE a.tenant_id = tenant AND a.agent_id = agent AND a.kind = 'run'
           AND a.start_time >= from_time AND a.start_time < before_time
         GROUP BY GROUPING SETS ((), (a.agent_revision))
    )
    SELECT c.agent_revision, coalesce(r.run_count, 0), coalesce(r.succeeded_count, 0), coalesce(r.failed_count, 0),
           coalesce(r.canceled_count, 0), c.tool_call_count, c.llm_call_count, coalesce(r.input_tokens, 0),
           coalesce(r.output_tokens, 0), coalesce(r.cached_tokens, 0), coalesce(r.reasoning_tokens, 0),
           coalesce(r.cost_nanos, 0), coalesce(r.unpriced_run_count, 0), r.mean_microseconds,
           r.percentiles[1]::bigint, r.percentiles[2]::bigint, r.last_run_time
      FROM calls c LEFT JOIN runs r ON coalesce(r.agent_revision, -1) = coalesce(c.agent_revision, -1);
$$;

-- The same for a call: all together first, then the newest revisions, at most so many. A NULL time bounds nothing.
CREATE OR REPLACE FUNCTION activity.get_agent_stats(
    tenant uuid, agent uuid, from_time timestamptz, before_time timestamptz, most_revisions integer
) RETURNS TABLE (
    agent_revision bigint, run_count bigint, succeeded_count bigint, failed_count bigint, canceled_count bigint,
    tool_call_count bigint, llm_call_count bigint, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
    reasoning_tokens bigint, cost_nanos bigint, unpriced_run_count bigint, mean_microseconds bigint,
    p50_microseconds bigint, p95_microseconds bigint, last_run_time timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY SELECT s.*
                   FROM activity.sum_up(tenant, agent, coalesce(from_time, '-infinity'),
                                        coalesce(before_time, 'infinity')) s
                  ORDER BY s.agent_revision DESC NULLS FIRST LIMIT most_revisions + 1;
END $$;

-- What each agent did since the beginning, as the functions above compute it; whoever reads it sees what its role may.
CREATE OR REPLACE VIEW activity.agent_stats WITH (security_invoker = true) AS
    SELECT agents.tenant_id, agents.agent_id, stats.*
      FROM (SELECT DISTINCT tenant_id, agent_id FROM activity.activities WHERE agent_id IS NOT NULL) agents
     CROSS JOIN LATERAL activity.sum_up(agents.tenant_id, agents.agent_id, '-infinity', 'infinity') stats;
GRANT SELECT ON activity.agent_stats TO minion_activity_app;

-- The smallest UUIDv7 made at a moment: its milliseconds since 1970, then version and variant.
CREATE OR REPLACE FUNCTION activity.first_id(moment timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid;
$$;

-- Makes the partition of a month (UTC), given by its first day; false when it is there. Rows of the month that wait in
-- the default partition move along. While they do, whoever writes to that partition waits, and its readers go on; they
-- wait shortly while the new one is attached.
CREATE OR REPLACE FUNCTION activity.make_partition(month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition text := format('activities_%s', to_char(month, 'YYYY_MM'));
    first uuid := activity.first_id(month::timestamp AT TIME ZONE 'UTC');
    next uuid := activity.first_id((month + interval '1 month') AT TIME ZONE 'UTC');
BEGIN
    IF to_regclass(format('activity.%I', partition)) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Attached, not created in place, so that the table itself stays open; the constraint spares the scan.
    EXECUTE format('CREATE TABLE activity.%I (LIKE activity.activities INCLUDING ALL,
                        CONSTRAINT within_month CHECK (activity_id >= %L AND activity_id < %L))
                    WITH (autovacuum_vacuum_insert_scale_factor = 0.02)',
                   partition, first, next);
    EXECUTE format('ALTER TABLE activity.%I ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE format('ALTER TABLE activity.%I FORCE ROW LEVEL SECURITY', partition);
    EXECUTE format('CREATE POLICY owner ON activity.%I TO minion_activity_owner USING (true)', partition);
    LOCK TABLE activity.activities_default IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format('WITH moved AS (DELETE FROM activity.activities_default
                                    WHERE activity_id >= %L AND activity_id < %L RETURNING *)
                    INSERT INTO activity.%I SELECT * FROM moved', first, next, partition);
    EXECUTE format('ALTER TABLE activity.activities ATTACH PARTITION activity.%I FOR VALUES FROM (%L) TO (%L)',
                   partition, first, next);
    EXECUTE format('ALTER TABLE activity.%I DROP CONSTRAINT within_month', partition);
    RETURN true;
END $$;

-- Makes the partitions of this month and the next ones that aren't there yet; returns the months of those it made. Of
-- several callers at once one does it, the others return nothing.
CREATE OR REPLACE FUNCTION activity.make_partitions(ahead integer) RETURNS SETOF date
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC');
    month date;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('minion activity partitions', 0)) THEN
        RETURN;
    END IF;
    FOR distance IN 0..ahead LOOP
        month := this_month + make_interval(months => distance);
        IF activity.make_partition(month) THEN
            RETURN NEXT month;
        END IF;
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION activity.make_partition(date), activity.make_partitions(integer) FROM minion_activity_app;

SELECT activity.make_partitions(3);

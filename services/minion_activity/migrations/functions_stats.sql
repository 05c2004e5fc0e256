-- Figures of agents and of single revisions; applied again whenever this file has changed.

-- The query of an agent's figures, of all its activities or those of some revisions, so that each is planned with its
-- values and on its own indexes. Its parameters are tenant, agent, from_time, before_time, revisions. One row for all
-- together, with agent_revision NULL, and one for each revision known. Runs tell success, tokens, cost and duration,
-- since a run's are the sums over its calls. Sums beyond a bigint stay at its end. A price in another currency than
-- dollars counts as not known.
CREATE OR REPLACE FUNCTION activity.stats_query(by_revision boolean, with_calls boolean) RETURNS text LANGUAGE sql IMMUTABLE AS $query$
    SELECT format($sql$
    -- Apart: runs are read from an index of their own alone. Calls are found by the agent's, and their status in the rows.
    WITH calls AS (
        SELECT a.agent_revision,
               count(*) FILTER (WHERE a.kind = 'tool_call') AS tool_call_count,
               count(*) FILTER (WHERE a.kind = 'tool_call' AND a.status = 'failed') AS failed_tool_call_count,
               count(*) FILTER (WHERE a.kind = 'llm_call') AS llm_call_count
          FROM activity.activities a
         WHERE a.tenant_id = $1 AND a.agent_id = $2 AND a.kind IN ('llm_call', 'tool_call')
           AND a.start_time >= $3 AND a.start_time < $4 %1$s %2$s
         GROUP BY GROUPING SETS ((), (a.agent_revision))
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
         WHERE a.tenant_id = $1 AND a.agent_id = $2 AND a.kind = 'run'
           AND a.start_time >= $3 AND a.start_time < $4 %1$s
         GROUP BY GROUPING SETS ((), (a.agent_revision))
    )
    SELECT coalesce(c.agent_revision, r.agent_revision) AS agent_revision,
           coalesce(r.run_count, 0) AS run_count, coalesce(r.succeeded_count, 0) AS succeeded_count,
           coalesce(r.failed_count, 0) AS failed_count, coalesce(r.canceled_count, 0) AS canceled_count,
           coalesce(c.tool_call_count, 0) AS tool_call_count,
           coalesce(c.failed_tool_call_count, 0) AS failed_tool_call_count,
           coalesce(c.llm_call_count, 0) AS llm_call_count, coalesce(r.input_tokens, 0) AS input_tokens,
           coalesce(r.output_tokens, 0) AS output_tokens, coalesce(r.cached_tokens, 0) AS cached_tokens,
           coalesce(r.reasoning_tokens, 0) AS reasoning_tokens, coalesce(r.cost_nanos, 0) AS cost_nanos,
           coalesce(r.unpriced_run_count, 0) AS unpriced_run_count, r.mean_microseconds,
           r.percentiles[1]::bigint AS p50_microseconds, r.percentiles[2]::bigint AS p95_microseconds, r.last_run_time
      FROM calls c FULL JOIN runs r ON coalesce(r.agent_revision, -1) = coalesce(c.agent_revision, -1)
     WHERE coalesce(c.agent_revision, r.agent_revision, 1) > 0
     ORDER BY 1 DESC NULLS FIRST
    $sql$, CASE WHEN by_revision THEN 'AND a.agent_revision = ANY ($5)' ELSE '' END,
           CASE WHEN with_calls THEN '' ELSE 'AND false' END);
$query$;

-- What an agent did in activities that began in [from_time, before_time): all together first, then the newest
-- revisions, at most so many. A NULL time bounds nothing; NULL revisions are all, else those alone count. Calls are counted on demand.
CREATE OR REPLACE FUNCTION activity.get_agent_stats(
    tenant uuid, agent uuid, from_time timestamptz, before_time timestamptz, revisions bigint[], most_revisions integer,
    leave_out_calls boolean
) RETURNS TABLE (
    agent_revision bigint, run_count bigint, succeeded_count bigint, failed_count bigint, canceled_count bigint,
    tool_call_count bigint, failed_tool_call_count bigint, llm_call_count bigint, input_tokens bigint,
    output_tokens bigint, cached_tokens bigint, reasoning_tokens bigint, cost_nanos bigint, unpriced_run_count bigint,
    mean_microseconds bigint, p50_microseconds bigint, p95_microseconds bigint, last_run_time timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY EXECUTE activity.stats_query(revisions IS NOT NULL, NOT leave_out_calls) || ' LIMIT $6'
           USING tenant, agent, coalesce(from_time, '-infinity'), coalesce(before_time, 'infinity'), revisions,
                 most_revisions + 1;
END $$;

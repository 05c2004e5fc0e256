-- The registry's functions for rollouts; applied again whenever this file has changed.

-- Takes running rollouts that are due to be looked at, of all tenants, and keeps other replicas off them for a time.
CREATE OR REPLACE FUNCTION registry.claim_rollouts(most integer, hold interval)
RETURNS TABLE (tenant_id uuid, rollout_id uuid)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH due AS (
        SELECT r.tenant_id, r.rollout_id FROM registry.rollouts r
         WHERE r.status = 'running' AND r.check_due_time <= now()
         ORDER BY r.check_due_time LIMIT most FOR UPDATE SKIP LOCKED
    )
    UPDATE registry.rollouts r SET check_due_time = now() + hold
      FROM due
     WHERE r.tenant_id = due.tenant_id AND r.rollout_id = due.rollout_id
    RETURNING r.tenant_id, r.rollout_id;
$$;

-- What resolve_agent gives, and the rollout under way: its share, its salt, and the agent in the candidate revision;
-- NULL where there is none. All that the gateway needs, in one round trip. Written as json, since building jsonb only to
-- send it takes twice as long.
CREATE OR REPLACE FUNCTION registry.resolve_agent_with_rollout(tenant uuid, agent uuid, agent_name text)
RETURNS TABLE (
    agent_id uuid, name text, display_name text, description text, behavior_type text, instructions text, llm jsonb,
    capabilities text[], behavior jsonb, metadata jsonb, labels jsonb, status text, revision bigint,
    latest_revision bigint, version bigint, create_time timestamptz, updated_at timestamptz, tools json, rollout json
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
           a.behavior, a.metadata, a.labels, a.status, a.revision, a.latest_revision, a.version, a.create_time,
           a.updated_at,
           coalesce((
               SELECT json_agg(to_json(bound) ORDER BY bound.name)
                 FROM (SELECT t.*, extract(epoch FROM t.time_limit) AS time_limit_seconds, b.configuration,
                              b.bound_digest, b.create_time AS bind_time
                         FROM registry.agent_tools b
                         JOIN registry.tools t ON t.tenant_id = b.tenant_id AND t.tool_id = b.tool_id
                        WHERE b.tenant_id = tenant AND b.agent_id = found) bound), '[]'::json),
           -- By the agent's own row: an agent without a rollout costs no look for one.
           CASE WHEN a.rollout_id IS NOT NULL THEN (
               SELECT json_build_object(
                          'rollout_id', r.rollout_id, 'basis_points', r.basis_points, 'candidate', to_json(c))
                 FROM registry.rollouts r
                 JOIN registry.agent_revisions c
                   ON c.tenant_id = r.tenant_id AND c.agent_id = r.agent_id AND c.revision = r.candidate_revision
                WHERE r.tenant_id = tenant AND r.rollout_id = a.rollout_id AND r.status = 'running') END
      FROM registry.agents a
     WHERE a.tenant_id = tenant AND a.agent_id = found;
END $$;

-- name: bind_tool
-- Binds a tool with its digest of now; one that is bound already is bound anew.
INSERT INTO registry.agent_tools AS b (tenant_id, agent_id, tool_id, configuration, bound_digest)
SELECT t.tenant_id, $2, t.tool_id, $4, t.digest
  FROM registry.tools t
 WHERE t.tenant_id = $1 AND t.tool_id = $3
    ON CONFLICT (tenant_id, agent_id, tool_id) DO UPDATE
   SET configuration = excluded.configuration, bound_digest = excluded.bound_digest, create_time = now()
RETURNING b.configuration, b.bound_digest, b.create_time AS bind_time;

-- name: get_binding
-- How a tool is bound to an agent.
SELECT configuration, bound_digest, create_time AS bind_time
  FROM registry.agent_tools
 WHERE tenant_id = $1 AND agent_id = $2 AND tool_id = $3;

-- name: unbind_tool
-- Takes a tool from an agent.
DELETE FROM registry.agent_tools WHERE tenant_id = $1 AND agent_id = $2 AND tool_id = $3;

-- name: measure_tools
-- How many tools an agent has, and at least what they take on the wire together.
SELECT count(*) AS tools,
       coalesce(sum(t.wire_bytes + 4 * octet_length(t.default_configuration::text)
                    + 8 * octet_length(b.configuration::text)), 0)::bigint AS wire_bytes
  FROM registry.agent_tools b
  JOIN registry.tools t ON t.tenant_id = b.tenant_id AND t.tool_id = b.tool_id
 WHERE b.tenant_id = $1 AND b.agent_id = $2;

-- name: list_agent_tools
-- A page of an agent's tools after a name, by name.
SELECT t.tool_id, t.name, t.description, t.input_schema, t.transport, t.builtin, t.effect, t.time_limit,
       t.cost_per_call_nanos, t.labels, t.output_schema, t.examples, t.documentation, t.target, t.approval,
       t.configuration_schema, t.default_configuration, t.credentials, t.version, t.digest, t.status, t.status_note,
       t.edition, t.create_time, t.updated_at, b.configuration, b.bound_digest, b.create_time AS bind_time
  FROM registry.agent_tools b
  JOIN registry.tools t ON t.tenant_id = b.tenant_id AND t.tool_id = b.tool_id
 WHERE b.tenant_id = $1 AND b.agent_id = $2 AND t.name > $3
 ORDER BY t.name LIMIT $4;

-- name: resolve_agent
-- An agent by id or name with its tools and its rollout under way, in one round trip.
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, revision AS live_revision, latest_revision, version, create_time, updated_at, tools,
       rollout
  FROM registry.resolve_agent_with_rollout($1, $2, $3);

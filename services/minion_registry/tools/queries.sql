-- name: insert_tool
-- Registers a tool in its first version; a trigger keeps its labels for the lists.
WITH tool AS (
    INSERT INTO registry.tools (tenant_id, tool_id, name, description, input_schema, transport, builtin, effect,
                                time_limit, cost_per_call_nanos, labels, output_schema, examples, documentation, target,
                                approval, configuration_schema, default_configuration, credentials, digest)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
      RETURNING *
), version AS (
    INSERT INTO registry.tool_versions (tenant_id, tool_id, version, name, description, input_schema, transport,
                                        builtin, effect, time_limit, cost_per_call_nanos, labels, output_schema,
                                        examples, documentation, target, approval, configuration_schema,
                                        default_configuration, credentials, digest)
    SELECT tenant_id, tool_id, version, name, description, input_schema, transport, builtin, effect, time_limit,
           cost_per_call_nanos, labels, output_schema, examples, documentation, target, approval, configuration_schema,
           default_configuration, credentials, digest
      FROM tool
)
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       output_schema, examples, documentation, target, approval, configuration_schema, default_configuration,
       credentials, version, digest, status, status_note, edition, create_time, updated_at
  FROM tool;

-- name: measure_tool
-- At least what a tool takes on the wire where it is bound: its default settings go there merged as well.
SELECT wire_bytes + 4 * octet_length(default_configuration::text) FROM registry.tools WHERE tenant_id = $1 AND tool_id = $2;

-- name: update_tool
-- Replaces a tool's contents, keeps them as a new version, and brings the feed along; a trigger does so for labels.
WITH tool AS (
    UPDATE registry.tools SET name = $3, description = $4, input_schema = $5, transport = $6, builtin = $7,
        effect = $8, time_limit = $9, cost_per_call_nanos = $10, labels = $11, output_schema = $12, examples = $13,
        documentation = $14, target = $15, approval = $16, configuration_schema = $17, default_configuration = $18,
        credentials = $19, digest = $20, version = version + 1, edition = edition + 1
     WHERE tenant_id = $1 AND tool_id = $2
    RETURNING *
), version AS (
    INSERT INTO registry.tool_versions (tenant_id, tool_id, version, name, description, input_schema, transport,
                                        builtin, effect, time_limit, cost_per_call_nanos, labels, output_schema,
                                        examples, documentation, target, approval, configuration_schema,
                                        default_configuration, credentials, digest)
    SELECT tenant_id, tool_id, version, name, description, input_schema, transport, builtin, effect, time_limit,
           cost_per_call_nanos, labels, output_schema, examples, documentation, target, approval, configuration_schema,
           default_configuration, credentials, digest
      FROM tool
), change AS (
    INSERT INTO registry.changes (tenant_id, resource_id, kind) SELECT tenant_id, tool_id, 'tool_changed' FROM tool
)
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       output_schema, examples, documentation, target, approval, configuration_schema, default_configuration,
       credentials, version, digest, status, status_note, edition, create_time, updated_at,
       wire_bytes + 4 * octet_length(default_configuration::text) AS wire_bytes
  FROM tool;

-- name: set_tool_status
-- Moves a tool to another status; the database refuses an illegal move too. Without a note the one before stands.
WITH tool AS (
    UPDATE registry.tools SET status = $3, status_note = coalesce(nullif($4, ''), status_note), edition = edition + 1
     WHERE tenant_id = $1 AND tool_id = $2
    RETURNING *
), change AS (
    INSERT INTO registry.changes (tenant_id, resource_id, kind) SELECT tenant_id, tool_id, 'tool_changed' FROM tool
)
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       output_schema, examples, documentation, target, approval, configuration_schema, default_configuration,
       credentials, version, digest, status, status_note, edition, create_time, updated_at
  FROM tool;

-- name: get_tool
-- A tool by its id.
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       output_schema, examples, documentation, target, approval, configuration_schema, default_configuration,
       credentials, version, digest, status, status_note, edition, create_time, updated_at
  FROM registry.tools
 WHERE tenant_id = $1 AND tool_id = $2;

-- name: get_tool_by_name
-- A tool by its name.
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       output_schema, examples, documentation, target, approval, configuration_schema, default_configuration,
       credentials, version, digest, status, status_note, edition, create_time, updated_at
  FROM registry.tools
 WHERE tenant_id = $1 AND name = $2;

-- name: lock_tool
-- A tool by its id, held until the transaction ends.
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       output_schema, examples, documentation, target, approval, configuration_schema, default_configuration,
       credentials, version, digest, status, status_note, edition, create_time, updated_at
  FROM registry.tools
 WHERE tenant_id = $1 AND tool_id = $2
   FOR UPDATE;

-- name: share_tool
-- A tool by its id, kept as it is until the transaction ends; others may do the same.
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       output_schema, examples, documentation, target, approval, configuration_schema, default_configuration,
       credentials, version, digest, status, status_note, edition, create_time, updated_at
  FROM registry.tools
 WHERE tenant_id = $1 AND tool_id = $2
   FOR SHARE;

-- name: get_tools
-- Tools by their ids, by name.
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       output_schema, examples, documentation, target, approval, configuration_schema, default_configuration,
       credentials, version, digest, status, status_note, edition, create_time, updated_at
  FROM registry.tools
 WHERE tenant_id = $1 AND tool_id = ANY ($2)
 ORDER BY name;

-- name: get_tool_versions
-- A tool with the contents of some of its versions, newest first.
SELECT v.tool_id, v.name, v.description, v.input_schema, v.transport, v.builtin, v.effect, v.time_limit,
       v.cost_per_call_nanos, v.labels, v.output_schema, v.examples, v.documentation, v.target, v.approval,
       v.configuration_schema, v.default_configuration, v.credentials, v.version, v.digest, t.status, t.status_note,
       t.edition, t.create_time, v.create_time AS updated_at
  FROM registry.tool_versions v
  JOIN registry.tools t ON t.tenant_id = v.tenant_id AND t.tool_id = v.tool_id
 WHERE v.tenant_id = $1 AND v.tool_id = $2 AND v.version = ANY ($3)
 ORDER BY v.version DESC;

-- name: list_tool_versions
-- What a page of a tool's versions before a number may hold, newest first.
SELECT version,
       coalesce(wire_bytes, 5000 + octet_length(description) + 4 * octet_length(input_schema::text)
                            + 4 * octet_length(labels::text)) AS wire_bytes
  FROM registry.tool_versions
 WHERE tenant_id = $1 AND tool_id = $2 AND version < $3
 ORDER BY version DESC LIMIT $4;

-- name: list_tools
-- What a page of tools after a name may hold, by name.
SELECT tool_id, name, wire_bytes
  FROM registry.tools
 WHERE tenant_id = $1 AND name > $2
 ORDER BY name LIMIT $3;

-- name: list_tools_by_transport
-- The same of the tools of one transport.
SELECT tool_id, name, wire_bytes
  FROM registry.tools
 WHERE tenant_id = $1 AND transport = $4 AND name > $2
 ORDER BY name LIMIT $3;

-- name: list_tools_by_status
-- The same of the tools of one status, and of one transport where $5 says so.
SELECT tool_id, name, wire_bytes
  FROM registry.tools
 WHERE tenant_id = $1 AND status = $4 AND name > $2 AND ($5::text IS NULL OR transport = $5)
 ORDER BY name LIMIT $3;

-- name: list_tools_by_label
-- The same of the tools with one label; the other filters and labels look at what that gives. OFFSET 0 keeps the planner
-- from joining with all of the tenant's tools: it thinks that the other filters leave next to nothing.
SELECT l.tool_id, l.tool_name AS name, t.wire_bytes
  FROM registry.tool_labels l
 CROSS JOIN LATERAL (
       SELECT wire_bytes FROM registry.tools
        WHERE tenant_id = $1 AND tool_id = l.tool_id
          AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR transport = $5)
          AND ($8::jsonb IS NULL OR labels @> $8)
       OFFSET 0) t
 WHERE l.tenant_id = $1 AND l.key = $6 AND l.value = $7 AND l.tool_name > $2
 ORDER BY l.tool_name LIMIT $3;

-- name: list_bound_agents
-- The agents that a tool is bound to with a digest, and how many they are.
SELECT agent_id, count(*) OVER () AS agents
  FROM registry.agent_tools
 WHERE tenant_id = $1 AND tool_id = $2 AND bound_digest = $3
 ORDER BY agent_id LIMIT $4;

-- name: find_crowded_agent
-- An agent with the tool whose tools would take more on the wire together than $3, if there is one.
SELECT b.agent_id
  FROM registry.agent_tools b
 CROSS JOIN LATERAL (
       SELECT sum(t.wire_bytes + 4 * octet_length(t.default_configuration::text)
                  + 8 * octet_length(o.configuration::text)) AS wire_bytes
         FROM registry.agent_tools o
         JOIN registry.tools t ON t.tenant_id = o.tenant_id AND t.tool_id = o.tool_id
        WHERE o.tenant_id = $1 AND o.agent_id = b.agent_id) held
 WHERE b.tenant_id = $1 AND b.tool_id = $2 AND held.wire_bytes > $3
 LIMIT 1;

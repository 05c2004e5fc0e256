-- name: insert_tool
-- Registers a tool in its first version.
INSERT INTO registry.tools (tenant_id, tool_id, name, description, input_schema, transport, builtin, effect, time_limit,
                            cost_per_call_nanos, labels, digest)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
  RETURNING tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos,
            labels, version, digest, create_time, updated_at;

-- name: insert_tool_version
-- Keeps what the tool is now as one of its versions.
INSERT INTO registry.tool_versions (tenant_id, tool_id, version, name, description, input_schema, transport, builtin,
                                    effect, time_limit, cost_per_call_nanos, labels, digest)
SELECT tenant_id, tool_id, version, name, description, input_schema, transport, builtin, effect, time_limit,
       cost_per_call_nanos, labels, digest
  FROM registry.tools
 WHERE tenant_id = $1 AND tool_id = $2;

-- name: get_tool
-- A tool by its id.
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       version, digest, create_time, updated_at
  FROM registry.tools
 WHERE tenant_id = $1 AND tool_id = $2;

-- name: get_tool_by_name
-- A tool by its name.
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       version, digest, create_time, updated_at
  FROM registry.tools
 WHERE tenant_id = $1 AND name = $2;

-- name: get_tools
-- Tools by their ids, by name.
SELECT tool_id, name, description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels,
       version, digest, create_time, updated_at
  FROM registry.tools
 WHERE tenant_id = $1 AND tool_id = ANY ($2)
 ORDER BY name;

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

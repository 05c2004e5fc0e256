-- name: insert_agent
-- Creates an agent with its first revision, its labels and capabilities for the lists, and its line in the feed.
WITH agent AS (
    INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type, instructions,
                                 llm, capabilities, behavior, metadata, labels)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
      RETURNING *
), revision AS (
    INSERT INTO registry.agent_revisions (tenant_id, agent_id, revision, name, display_name, description,
                                          behavior_type, instructions, llm, capabilities, behavior, metadata, labels)
    SELECT tenant_id, agent_id, revision, name, display_name, description, behavior_type, instructions, llm,
           capabilities, behavior, metadata, labels
      FROM agent
), label AS (
    INSERT INTO registry.agent_labels (tenant_id, agent_id, key, value, agent_create_time)
    SELECT agent.tenant_id, agent.agent_id, l.key, l.value, agent.create_time
      FROM agent, jsonb_each_text(agent.labels) l
), capability AS (
    INSERT INTO registry.agent_capabilities (tenant_id, agent_id, capability, agent_create_time)
    SELECT agent.tenant_id, agent.agent_id, c.capability, agent.create_time
      FROM agent, unnest(agent.capabilities) c (capability)
), change AS (
    INSERT INTO registry.changes (tenant_id, resource_id, kind) SELECT tenant_id, agent_id, 'created' FROM agent
)
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, version, create_time, updated_at
  FROM agent;

-- name: update_agent
-- Replaces an agent's contents, keeps them as a new revision, and brings labels, capabilities and feed along.
WITH agent AS (
    UPDATE registry.agents SET name = $3, display_name = $4, description = $5, behavior_type = $6, instructions = $7,
        llm = $8, capabilities = $9, behavior = $10, metadata = $11, labels = $12,
        revision = revision + 1, version = version + 1
     WHERE tenant_id = $1 AND agent_id = $2
    RETURNING *
), revision AS (
    INSERT INTO registry.agent_revisions (tenant_id, agent_id, revision, name, display_name, description,
                                          behavior_type, instructions, llm, capabilities, behavior, metadata, labels)
    SELECT tenant_id, agent_id, revision, name, display_name, description, behavior_type, instructions, llm,
           capabilities, behavior, metadata, labels
      FROM agent
), label_gone AS (
    DELETE FROM registry.agent_labels l USING agent
     WHERE l.tenant_id = agent.tenant_id AND l.agent_id = agent.agent_id AND NOT agent.labels ? l.key
), label AS (
    INSERT INTO registry.agent_labels (tenant_id, agent_id, key, value, agent_create_time)
    SELECT agent.tenant_id, agent.agent_id, l.key, l.value, agent.create_time
      FROM agent, jsonb_each_text(agent.labels) l
    ON CONFLICT (tenant_id, agent_id, key) DO UPDATE SET value = excluded.value
), capability_gone AS (
    DELETE FROM registry.agent_capabilities c USING agent
     WHERE c.tenant_id = agent.tenant_id AND c.agent_id = agent.agent_id AND c.capability <> ALL (agent.capabilities)
), capability AS (
    INSERT INTO registry.agent_capabilities (tenant_id, agent_id, capability, agent_create_time)
    SELECT agent.tenant_id, agent.agent_id, c.capability, agent.create_time
      FROM agent, unnest(agent.capabilities) c (capability)
    ON CONFLICT (tenant_id, agent_id, capability) DO NOTHING
), change AS (
    INSERT INTO registry.changes (tenant_id, resource_id, kind) SELECT tenant_id, agent_id, 'updated' FROM agent
)
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, version, create_time, updated_at
  FROM agent;

-- name: set_agent_status
-- Moves an agent to another status; the database refuses an illegal move too.
WITH agent AS (
    UPDATE registry.agents SET status = $3, version = version + 1
     WHERE tenant_id = $1 AND agent_id = $2
    RETURNING *
), change AS (
    INSERT INTO registry.changes (tenant_id, resource_id, kind)
    SELECT tenant_id, agent_id, 'status_changed' FROM agent
)
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, version, create_time, updated_at
  FROM agent;

-- name: touch_agent
-- Makes a new version of an agent whose tools changed.
WITH agent AS (
    UPDATE registry.agents SET version = version + 1
     WHERE tenant_id = $1 AND agent_id = $2
    RETURNING tenant_id, agent_id
)
INSERT INTO registry.changes (tenant_id, resource_id, kind) SELECT tenant_id, agent_id, 'tools_changed' FROM agent;

-- name: delete_agent
-- Deletes a draft or archived agent of the transaction's tenant with all that hangs on it.
WITH gone AS (
    SELECT $1::uuid AS tenant_id, $2::uuid AS agent_id WHERE registry.delete_agent($2)
)
INSERT INTO registry.changes (tenant_id, resource_id, kind) SELECT tenant_id, agent_id, 'deleted' FROM gone;

-- name: get_agent
-- An agent by its id, in its current revision.
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, version, create_time, updated_at
  FROM registry.agents
 WHERE tenant_id = $1 AND agent_id = $2;

-- name: get_agent_by_name
-- An agent by its name, in its current revision.
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, version, create_time, updated_at
  FROM registry.agents
 WHERE tenant_id = $1 AND name = $2;

-- name: lock_agent
-- An agent by its id, held until the transaction ends.
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, version, create_time, updated_at
  FROM registry.agents
 WHERE tenant_id = $1 AND agent_id = $2
   FOR UPDATE;

-- name: get_agents
-- Agents by their ids, newest first.
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, version, create_time, updated_at
  FROM registry.agents
 WHERE tenant_id = $1 AND agent_id = ANY ($2)
 ORDER BY create_time DESC, agent_id DESC;

-- name: get_agent_revisions
-- An agent with the contents of some of its revisions, newest first.
SELECT r.agent_id, r.name, r.display_name, r.description, r.behavior_type, r.instructions, r.llm, r.capabilities,
       r.behavior, r.metadata, r.labels, a.status, r.revision, a.version, a.create_time, r.create_time AS updated_at
  FROM registry.agent_revisions r
  JOIN registry.agents a ON a.tenant_id = r.tenant_id AND a.agent_id = r.agent_id
 WHERE r.tenant_id = $1 AND r.agent_id = $2 AND r.revision = ANY ($3)
 ORDER BY r.revision DESC;

-- name: list_agent_revisions
-- What a page of an agent's revisions before a number may hold, newest first.
SELECT revision, wire_bytes
  FROM registry.agent_revisions
 WHERE tenant_id = $1 AND agent_id = $2 AND revision < $3
 ORDER BY revision DESC LIMIT $4;

-- name: list_agents
-- What a page of agents before a place may hold, newest first.
SELECT agent_id, create_time, wire_bytes
  FROM registry.agents
 WHERE tenant_id = $1 AND (create_time, agent_id) < ($2, $3)
 ORDER BY create_time DESC, agent_id DESC LIMIT $4;

-- name: list_agents_by_behavior_type
-- The same of the agents of one behaviour type.
SELECT agent_id, create_time, wire_bytes
  FROM registry.agents
 WHERE tenant_id = $1 AND (create_time, agent_id) < ($2, $3) AND behavior_type = $5
 ORDER BY create_time DESC, agent_id DESC LIMIT $4;

-- name: list_agents_by_status
-- The same of the agents of one status, and of one behaviour type where $6 says so.
SELECT agent_id, create_time, wire_bytes
  FROM registry.agents
 WHERE tenant_id = $1 AND (create_time, agent_id) < ($2, $3) AND status = $5
   AND ($6::text IS NULL OR behavior_type = $6)
 ORDER BY create_time DESC, agent_id DESC LIMIT $4;

-- name: list_agents_by_capability
-- The same of the agents with one capability; the other filters look at what that gives. OFFSET 0 keeps the planner from
-- joining with all of the tenant's agents: it thinks that the other filters leave next to nothing.
SELECT c.agent_id, c.agent_create_time AS create_time, a.wire_bytes
  FROM registry.agent_capabilities c
 CROSS JOIN LATERAL (
       SELECT wire_bytes FROM registry.agents
        WHERE tenant_id = $1 AND agent_id = c.agent_id
          AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR behavior_type = $6)
       OFFSET 0) a
 WHERE c.tenant_id = $1 AND (c.agent_create_time, c.agent_id) < ($2, $3) AND c.capability = $7
 ORDER BY c.agent_create_time DESC, c.agent_id DESC LIMIT $4;

-- name: list_agents_by_label
-- The same of the agents with one label; the other filters and labels look at what that gives (OFFSET 0: as above).
SELECT l.agent_id, l.agent_create_time AS create_time, a.wire_bytes
  FROM registry.agent_labels l
 CROSS JOIN LATERAL (
       SELECT wire_bytes FROM registry.agents
        WHERE tenant_id = $1 AND agent_id = l.agent_id
          AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR behavior_type = $6)
          AND ($7::text IS NULL OR $7 = ANY (capabilities)) AND ($10::jsonb IS NULL OR labels @> $10)
       OFFSET 0) a
 WHERE l.tenant_id = $1 AND (l.agent_create_time, l.agent_id) < ($2, $3) AND l.key = $8 AND l.value = $9
 ORDER BY l.agent_create_time DESC, l.agent_id DESC LIMIT $4;

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
       labels, status, revision, revision AS live_revision, latest_revision, version, create_time, updated_at
  FROM agent;

-- name: add_revision
-- Keeps contents as the newest revision of a locked agent, and gives its number; nothing else of the agent changes yet.
INSERT INTO registry.agent_revisions (tenant_id, agent_id, revision, name, display_name, description, behavior_type,
                                      instructions, llm, capabilities, behavior, metadata, labels)
SELECT tenant_id, agent_id, latest_revision + 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
  FROM registry.agents
 WHERE tenant_id = $1 AND agent_id = $2
RETURNING revision;

-- name: stage_revision
-- Notes the newest revision of an agent; the live one goes on.
WITH agent AS (
    UPDATE registry.agents SET latest_revision = $3, version = version + 1
     WHERE tenant_id = $1 AND agent_id = $2
    RETURNING tenant_id, agent_id
)
INSERT INTO registry.changes (tenant_id, resource_id, kind) SELECT tenant_id, agent_id, 'updated' FROM agent;

-- name: make_live
-- Makes a revision the live one, with its name where $4 says so, and brings labels, capabilities and feed along. A
-- trigger does the same for metadata and words.
WITH agent AS (
    UPDATE registry.agents a SET name = CASE WHEN $4 THEN r.name ELSE a.name END,
        display_name = r.display_name, description = r.description,
        behavior_type = r.behavior_type, instructions = r.instructions, llm = r.llm, capabilities = r.capabilities,
        behavior = r.behavior, metadata = r.metadata, labels = r.labels, revision = r.revision,
        latest_revision = greatest(a.latest_revision, r.revision), version = a.version + 1
      FROM registry.agent_revisions r
     WHERE a.tenant_id = $1 AND a.agent_id = $2 AND r.tenant_id = $1 AND r.agent_id = $2 AND r.revision = $3
    RETURNING a.*
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
       labels, status, revision, revision AS live_revision, latest_revision, version, create_time, updated_at
  FROM agent;

-- name: set_rollout
-- Notes which rollout of an agent is under way, or that none is any more.
WITH agent AS (
    UPDATE registry.agents SET rollout_id = $3, version = version + 1
     WHERE tenant_id = $1 AND agent_id = $2
    RETURNING tenant_id, agent_id
)
INSERT INTO registry.changes (tenant_id, resource_id, kind) SELECT tenant_id, agent_id, 'rollout_changed' FROM agent;

-- name: running_rollout
-- Which rollout of an agent is under way.
SELECT rollout_id FROM registry.agents WHERE tenant_id = $1 AND agent_id = $2;

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
       labels, status, revision, revision AS live_revision, latest_revision, version, create_time, updated_at
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
       labels, status, revision, revision AS live_revision, latest_revision, version, create_time, updated_at
  FROM registry.agents
 WHERE tenant_id = $1 AND agent_id = $2;

-- name: get_agent_by_name
-- An agent by its name, in its current revision.
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, revision AS live_revision, latest_revision, version, create_time, updated_at
  FROM registry.agents
 WHERE tenant_id = $1 AND name = $2;

-- name: lock_agent
-- An agent by its id, held until the transaction ends.
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, revision AS live_revision, latest_revision, version, create_time, updated_at
  FROM registry.agents
 WHERE tenant_id = $1 AND agent_id = $2
   FOR UPDATE;

-- name: get_agents
-- Agents by their ids, newest first.
SELECT agent_id, name, display_name, description, behavior_type, instructions, llm, capabilities, behavior, metadata,
       labels, status, revision, revision AS live_revision, latest_revision, version, create_time, updated_at
  FROM registry.agents
 WHERE tenant_id = $1 AND agent_id = ANY ($2)
 ORDER BY create_time DESC, agent_id DESC;

-- name: get_agent_revisions
-- An agent with the contents of some of its revisions, newest first.
SELECT r.agent_id, r.name, r.display_name, r.description, r.behavior_type, r.instructions, r.llm, r.capabilities,
       r.behavior, r.metadata, r.labels, a.status, r.revision, a.revision AS live_revision, a.latest_revision,
       a.version, a.create_time, r.create_time AS updated_at
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
-- The same of the agents with one capability ($7), and the others of $8; the other filters look at what that gives.
-- OFFSET 0 keeps the planner from joining with all of the tenant's agents: it thinks that they leave next to nothing.
SELECT c.agent_id, c.agent_create_time AS create_time, a.wire_bytes
  FROM registry.agent_capabilities c
 CROSS JOIN LATERAL (
       SELECT wire_bytes FROM registry.agents
        WHERE tenant_id = $1 AND agent_id = c.agent_id
          AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR behavior_type = $6)
          AND ($8::text[] IS NULL OR capabilities @> $8)
       OFFSET 0) a
 WHERE c.tenant_id = $1 AND (c.agent_create_time, c.agent_id) < ($2, $3) AND c.capability = $7
 ORDER BY c.agent_create_time DESC, c.agent_id DESC LIMIT $4;

-- name: list_agents_by_label
-- The same of the agents with one label ($8, $9); the other filters and labels look at what that gives.
SELECT l.agent_id, l.agent_create_time AS create_time, a.wire_bytes
  FROM registry.agent_labels l
 CROSS JOIN LATERAL (
       SELECT wire_bytes FROM registry.agents
        WHERE tenant_id = $1 AND agent_id = l.agent_id
          AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR behavior_type = $6)
          AND ($7::text[] IS NULL OR capabilities @> $7) AND ($10::jsonb IS NULL OR labels @> $10)
       OFFSET 0) a
 WHERE l.tenant_id = $1 AND (l.agent_create_time, l.agent_id) < ($2, $3) AND l.key = $8 AND l.value = $9
 ORDER BY l.agent_create_time DESC, l.agent_id DESC LIMIT $4;

-- name: list_agents_by_metadata
-- The same of the agents whose metadata holds one value ($8), and the others of $9; the other filters and labels look at
-- what that gives.
SELECT m.agent_id, m.agent_create_time AS create_time, a.wire_bytes
  FROM registry.agent_metadata m
 CROSS JOIN LATERAL (
       SELECT wire_bytes FROM registry.agents
        WHERE tenant_id = $1 AND agent_id = m.agent_id
          AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR behavior_type = $6)
          AND ($7::text[] IS NULL OR capabilities @> $7) AND ($10::jsonb IS NULL OR labels @> $10)
          AND (SELECT count(*) FROM registry.agent_metadata other
                WHERE other.tenant_id = $1 AND other.agent_id = m.agent_id AND other.leaf = ANY ($9))
              = cardinality($9)
       OFFSET 0) a
 WHERE m.tenant_id = $1 AND (m.agent_create_time, m.agent_id) < ($2, $3) AND m.leaf = $8
 ORDER BY m.agent_create_time DESC, m.agent_id DESC LIMIT $4;

-- name: metadata_leaves
-- What stands in the side table for metadata that holds this.
SELECT leaf FROM registry.metadata_leaves($1) leaf ORDER BY leaf;

-- name: search_agents
-- What a page of the agents may hold that have any word of a text ($2), before a place in the order of their scores.
--
-- The newest $5 that fit are weighed: whoever is among them is among the newest $5 of each word that it has, so that the
-- words' lists tell all of its words. Of n words an agent with k gets more than k - 1 and at most k n-ths: the more of
-- them the better, and among equals those whose words weigh more (10 at most). Whole numbers until the end, so that a
-- score is the same on every page.
WITH asked AS MATERIALIZED (
    SELECT word, count(*) OVER () AS number
      FROM unnest(tsvector_to_array(to_tsvector('english', $2))) AS word
     ORDER BY length(word) DESC, word LIMIT 32
), weighed AS MATERIALIZED (
    SELECT near.agent_id, near.agent_create_time AS create_time,
           (10 * count(*) * (count(*) - 1) + sum(near.weight))::double precision
           / (10 * count(*) * least(min(asked.number), 32)) AS score
      FROM asked CROSS JOIN LATERAL (
           SELECT w.agent_id, w.agent_create_time, w.weight
             FROM registry.agent_words w
            WHERE w.tenant_id = $1 AND w.word = asked.word
              AND ($3::text IS NULL AND $4::text[] IS NULL
                   OR EXISTS (SELECT FROM registry.agents a
                               WHERE a.tenant_id = $1 AND a.agent_id = w.agent_id
                                 AND ($3::text IS NULL OR a.status = $3)
                                 AND ($4::text[] IS NULL OR a.capabilities @> $4) OFFSET 0))
            ORDER BY w.agent_create_time DESC, w.agent_id DESC LIMIT $5) near
     GROUP BY near.agent_id, near.agent_create_time
     ORDER BY near.agent_create_time DESC, near.agent_id DESC LIMIT $5
)
SELECT best.agent_id, best.create_time, best.score, a.wire_bytes
  FROM (SELECT * FROM weighed WHERE (score, create_time, agent_id) < ($6, $7, $8)
         ORDER BY score DESC, create_time DESC, agent_id DESC LIMIT $9) best
  JOIN registry.agents a ON a.tenant_id = $1 AND a.agent_id = best.agent_id
 ORDER BY best.score DESC, best.create_time DESC, best.agent_id DESC;

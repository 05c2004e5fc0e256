-- name: lock_scope
-- Locks a scope, as whoever writes its memories does.
SELECT memory.lock_scopes($1, ARRAY[$2::uuid], ARRAY[$3::text]);

-- name: scope_memories
-- What is so of a user now and nothing is known to take the place of, the oldest first, episodes left out.
SELECT * FROM memory.memory_details
 WHERE tenant_id = $1 AND agent_id = $2 AND user_id = $3 AND (valid_until IS NULL OR valid_until > now())
   AND superseded_by IS NULL AND NOT labels ? 'minion.episode'
 ORDER BY create_time, memory_id LIMIT $4;

-- name: scope_contents
-- What those say, and what they are filed under.
SELECT key, content FROM memory.memories
 WHERE tenant_id = $1 AND agent_id = $2 AND user_id = $3 AND (valid_until IS NULL OR valid_until > now())
   AND superseded_by IS NULL AND NOT labels ? 'minion.episode'
 ORDER BY create_time, memory_id LIMIT $4;

-- name: current_time
-- The database's time.
SELECT now();

-- name: distant_pairs
-- Pairs of memories whose vectors, of one model, are further apart than a similarity.
SELECT a.memory_id AS one, b.memory_id AS other
  FROM unnest($2::uuid[], $3::uuid[]) AS pair (one, other)
 CROSS JOIN LATERAL (SELECT * FROM memory.memory_vectors v
                      WHERE v.tenant_id = $1 AND v.memory_id = pair.one LIMIT 1) a
 CROSS JOIN LATERAL (SELECT * FROM memory.memory_vectors v
                      WHERE v.tenant_id = $1 AND v.memory_id = pair.other AND v.model_id = a.model_id LIMIT 1) b
 WHERE 1 - (a.embedding <=> b.embedding) < $4;

-- name: end_consolidated
-- Ends a memory that another takes the place of.
SELECT memory.end_memory($1, $2, $3, $4, 'consolidated', $5, $6);

-- name: note_sources
-- Keeps with a memory where those that it stands for were said.
SELECT memory_id FROM memory.revise_memory($1, $2, NULL, $3, NULL, NULL, 'consolidated', $4, $5);

-- name: prune
-- Deletes a memory.
DELETE FROM memory.memories WHERE tenant_id = $1 AND memory_id = ANY ($2);

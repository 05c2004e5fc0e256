-- name: get_workspace
-- All entries of a session; one row of NULLs when there are none, no row when there is no session.
SELECT e.key, e.value, e.version, e.updated_at AS update_time
  FROM session.sessions s
  LEFT JOIN session.workspace_entries e ON e.tenant_id = s.tenant_id AND e.session_id = s.session_id
 WHERE s.tenant_id = $1 AND s.session_id = $2
 ORDER BY e.key;

-- name: get_workspace_entries
-- The same, of these keys alone.
SELECT e.key, e.value, e.version, e.updated_at AS update_time
  FROM session.sessions s
  LEFT JOIN session.workspace_entries e
    ON e.tenant_id = s.tenant_id AND e.session_id = s.session_id AND e.key = ANY ($3)
 WHERE s.tenant_id = $1 AND s.session_id = $2
 ORDER BY e.key;

-- name: set_workspace_entries
-- Sets entries, or finds what a first try set, or says why not.
SELECT * FROM session.set_workspace_entries($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: delete_workspace_entries
-- Deletes entries, or finds how many a first try deleted, or says why not.
SELECT * FROM session.delete_workspace_entries($1, $2, $3, $4, $5);

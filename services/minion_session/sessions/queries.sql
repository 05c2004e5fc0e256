-- name: get_session
-- A session; a row of NULLs when there is none.
SELECT * FROM session.get_session($1, $2);

-- name: create_session
-- Stores a session; no row when its id is taken.
INSERT INTO session.sessions AS s
       (tenant_id, session_id, agent_id, user_id, display_name, metadata, expire_time)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7::interval)
ON CONFLICT (tenant_id, session_id) DO NOTHING
RETURNING s.session_id, s.agent_id, s.user_id, s.display_name, 'active' AS status, s.last_sequence, s.metadata,
          s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.parent_session_id,
          s.fork_sequence;

-- name: close_session
-- Closes a session that is active; no row when it isn't, or when there is none.
UPDATE session.sessions AS s SET close_time = now()
 WHERE s.tenant_id = $1 AND s.session_id = $2
   AND session.status_of(s.close_time, s.expire_time, s.hold_until, now()) = 'active'
RETURNING s.session_id, s.agent_id, s.user_id, s.display_name, 'closed' AS status, s.last_sequence, s.metadata,
          s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.parent_session_id,
          s.fork_sequence;

-- name: list_sessions
-- A tenant's sessions before a place in the list, newest first, with the bytes that they take up to each: a Struct takes
-- up to six times its JSON.
SELECT s.session_id, s.agent_id, s.user_id, s.display_name,
       session.status_of(s.close_time, s.expire_time, s.hold_until, now()) AS status, s.last_sequence, s.metadata,
       s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.parent_session_id,
       s.fork_sequence,
       sum(2048 + 6 * octet_length(s.metadata::text)) OVER (ORDER BY s.create_time DESC, s.session_id DESC) AS bytes
  FROM session.sessions s
 WHERE s.tenant_id = $1 AND (s.create_time, s.session_id) < ($2, $3)
   AND ($4::text IS NULL OR session.status_of(s.close_time, s.expire_time, s.hold_until, now()) = $4)
 ORDER BY s.create_time DESC, s.session_id DESC LIMIT $5;

-- name: list_sessions_of_user
-- The same of one user, and of one agent where it is given.
SELECT s.session_id, s.agent_id, s.user_id, s.display_name,
       session.status_of(s.close_time, s.expire_time, s.hold_until, now()) AS status, s.last_sequence, s.metadata,
       s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.parent_session_id,
       s.fork_sequence,
       sum(2048 + 6 * octet_length(s.metadata::text)) OVER (ORDER BY s.create_time DESC, s.session_id DESC) AS bytes
  FROM session.sessions s
 WHERE s.tenant_id = $1 AND (s.create_time, s.session_id) < ($2, $3)
   AND ($4::text IS NULL OR session.status_of(s.close_time, s.expire_time, s.hold_until, now()) = $4)
   AND s.user_id = $6 AND ($7::uuid IS NULL OR s.agent_id = $7)
 ORDER BY s.create_time DESC, s.session_id DESC LIMIT $5;

-- name: list_sessions_of_agent
-- The same of one agent.
SELECT s.session_id, s.agent_id, s.user_id, s.display_name,
       session.status_of(s.close_time, s.expire_time, s.hold_until, now()) AS status, s.last_sequence, s.metadata,
       s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.parent_session_id,
       s.fork_sequence,
       sum(2048 + 6 * octet_length(s.metadata::text)) OVER (ORDER BY s.create_time DESC, s.session_id DESC) AS bytes
  FROM session.sessions s
 WHERE s.tenant_id = $1 AND (s.create_time, s.session_id) < ($2, $3)
   AND ($4::text IS NULL OR session.status_of(s.close_time, s.expire_time, s.hold_until, now()) = $4)
   AND s.agent_id = $6
 ORDER BY s.create_time DESC, s.session_id DESC LIMIT $5;

-- name: count_active_sessions
-- How many sessions of all tenants take messages; an estimate beyond so many.
SELECT session.count_active_sessions($1);

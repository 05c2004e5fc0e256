-- name: get_session
-- A session; a row of NULLs when there is none.
SELECT * FROM session.get_session($1, $2);

-- name: lock_session
-- A session that nobody else changes until the transaction ends, and the run that holds it; no row when there is none.
SELECT s.session_id, s.agent_id, s.user_id, s.display_name,
       session.status_of(s.close_time, s.expire_time, s.hold_until, now(), s.archive_time) AS status, s.last_sequence,
       s.metadata, s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.archive_time, s.version,
       s.parent_session_id, s.fork_sequence,
       CASE WHEN s.hold_until > now() THEN s.held_by_run END AS holder
  FROM session.sessions s
 WHERE s.tenant_id = $1 AND s.session_id = $2
   FOR NO KEY UPDATE;

-- name: create_session
-- Stores a session and tells of it; no row when its id is taken.
WITH created AS (
    INSERT INTO session.sessions (tenant_id, session_id, agent_id, user_id, display_name, metadata, expire_time)
    VALUES ($1, $2, $3, $4, $5, $6, now() + $7::interval)
    ON CONFLICT (tenant_id, session_id) DO NOTHING
    RETURNING *
), told AS (
    INSERT INTO session.changes (tenant_id, resource_id, kind) SELECT tenant_id, session_id, 'created' FROM created
)
SELECT s.session_id, s.agent_id, s.user_id, s.display_name, 'active' AS status, s.last_sequence, s.metadata,
       s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.archive_time, s.version,
       s.parent_session_id, s.fork_sequence
  FROM created s;

-- name: update_session
-- Changes what a locked session is called and what the caller keeps with it, and tells of it.
WITH updated AS (
    UPDATE session.sessions s SET display_name = $3, metadata = $4, version = s.version + 1
     WHERE s.tenant_id = $1 AND s.session_id = $2
    RETURNING s.*
), told AS (
    INSERT INTO session.changes (tenant_id, resource_id, kind) SELECT tenant_id, session_id, 'updated' FROM updated
)
SELECT s.session_id, s.agent_id, s.user_id, s.display_name,
       session.status_of(s.close_time, s.expire_time, s.hold_until, now(), s.archive_time) AS status, s.last_sequence,
       s.metadata, s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.archive_time, s.version,
       s.parent_session_id, s.fork_sequence
  FROM updated s;

-- name: extend_session
-- Gives a locked session another time to live, and tells of it; one that expired may expire again.
WITH extended AS (
    UPDATE session.sessions s
       SET expire_time = now() + $3::interval, expiry_told_time = NULL, version = s.version + 1
     WHERE s.tenant_id = $1 AND s.session_id = $2
    RETURNING s.*
), told AS (
    INSERT INTO session.changes (tenant_id, resource_id, kind) SELECT tenant_id, session_id, 'updated' FROM extended
)
SELECT s.session_id, s.agent_id, s.user_id, s.display_name, 'active' AS status, s.last_sequence, s.metadata,
       s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.archive_time, s.version,
       s.parent_session_id, s.fork_sequence
  FROM extended s;

-- name: close_session
-- Closes a locked session, and tells of it.
WITH closed AS (
    UPDATE session.sessions s SET close_time = now()
     WHERE s.tenant_id = $1 AND s.session_id = $2
    RETURNING s.*
), told AS (
    INSERT INTO session.changes (tenant_id, resource_id, kind) SELECT tenant_id, session_id, 'closed' FROM closed
)
SELECT s.session_id, s.agent_id, s.user_id, s.display_name, 'closed' AS status, s.last_sequence, s.metadata,
       s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.archive_time, s.version,
       s.parent_session_id, s.fork_sequence
  FROM closed s;

-- name: archive_session
-- Archives a locked session, and tells of it. A run whose hold lapsed may append no more.
WITH archived AS (
    UPDATE session.sessions s SET archive_time = now(), held_by_run = NULL, hold_until = NULL
     WHERE s.tenant_id = $1 AND s.session_id = $2
    RETURNING s.*
), told AS (
    INSERT INTO session.changes (tenant_id, resource_id, kind) SELECT tenant_id, session_id, 'archived' FROM archived
)
SELECT s.session_id, s.agent_id, s.user_id, s.display_name, 'archived' AS status, s.last_sequence, s.metadata,
       s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.archive_time, s.version,
       s.parent_session_id, s.fork_sequence
  FROM archived s;

-- name: delete_session
-- Deletes a session of the transaction's tenant; false when there was none.
SELECT was_there FROM session.delete_session($1);

-- name: list_sessions
-- A tenant's sessions before a place in the list, newest first, with the bytes that they take up to each: a Struct takes
-- up to six times its JSON, of which there are 16 KiB at most. (Postgres may write more: it spells 1e308 out.)
SELECT s.session_id, s.agent_id, s.user_id, s.display_name,
       session.status_of(s.close_time, s.expire_time, s.hold_until, now(), s.archive_time) AS status, s.last_sequence,
       s.metadata, s.create_time, s.updated_at AS update_time, s.expire_time, s.close_time, s.archive_time, s.version,
       s.parent_session_id, s.fork_sequence,
       sum(2048 + 6 * least(octet_length(s.metadata::text), 16384))
           OVER (ORDER BY s.create_time DESC, s.session_id DESC) AS bytes
  FROM session.find_sessions($1, $2, $3, $4, $5, $6, $7) s
 ORDER BY s.create_time DESC, s.session_id DESC;

-- name: count_active_sessions
-- How many sessions of all tenants take messages; an estimate beyond so many.
SELECT session.count_active_sessions($1);

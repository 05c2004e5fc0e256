-- name: hold_session_feed
-- Takes or keeps the feed; the cursor, or NULL while another replica reads.
SELECT memory.hold_session_feed($1, $2);

-- name: advance_session_feed
-- Moves the feed's cursor on; false when another replica reads.
SELECT memory.advance_session_feed($1, $2, $3);

-- name: release_session_feed
-- Gives the feed back.
SELECT memory.release_session_feed($1);

-- name: note_session
-- Notes that a session changed.
SELECT memory.note_session($1, $2);

-- name: forget_session
-- Forgets a session that is gone.
SELECT memory.forget_session($1, $2);

-- name: watching_tenants
-- Tenants whose sessions are followed.
SELECT tenant_id FROM memory.watching_tenants() AS tenants (tenant_id);

-- name: pick_watched_sessions
-- Takes sessions that are due, with the database's time.
SELECT tenant_id, session_id, version, now() AS picked_at FROM memory.pick_watched_sessions($1, $2);

-- name: schedule_extraction
-- Makes jobs of what an extractor hasn't seen of a session; how many.
SELECT memory.schedule_extraction($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: drawn_sequences
-- How far each extractor has come in a session.
SELECT drawn FROM memory.watched_sessions WHERE tenant_id = $1 AND session_id = $2;

-- name: settle_session
-- Ends a look at a session.
SELECT memory.settle_session($1, $2, $3, $4, $5);

-- name: request_extraction
-- Asks for a stretch; the job, and whether it is this request's.
SELECT job_id, fresh, failed_tries FROM memory.request_extraction($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: get_extraction_job
-- A job, or no row.
SELECT * FROM memory.get_extraction_job($1, $2);

-- name: list_extraction_jobs
-- One page of jobs, newest first.
SELECT * FROM memory.list_extraction_jobs($1, $2, $3, $4, $5, $6);

-- name: lock_job_to_restart
-- Locks a job that is to be run again.
SELECT * FROM memory.extraction_jobs WHERE tenant_id = $1 AND job_id = $2 FOR UPDATE;

-- name: restart_job
-- Puts a job back to its beginning.
SELECT memory.restart_job($1, $2);

-- name: lease_extraction_jobs
-- Leases jobs that are due.
SELECT tenant_id, job_id, epoch FROM memory.lease_extraction_jobs($1, $2, $3, $4);

-- name: renew_extraction_jobs
-- Renews leases; the jobs that are still held.
SELECT job_id FROM memory.renew_extraction_jobs($1, $2, $3, $4, $5) AS held (job_id);

-- name: release_extraction_jobs
-- Gives a replica's jobs back.
SELECT memory.release_extraction_jobs($1);

-- name: fail_extraction_job
-- Ends a try that failed.
SELECT memory.fail_extraction_job($1, $2, $3, $4, $5, $6);

-- name: extraction_backlog
-- What waits and has failed.
SELECT waiting, failed, lag FROM memory.extraction_backlog();

-- name: purge_extraction_jobs
-- Deletes old jobs.
SELECT memory.purge_extraction_jobs($1, $2);

-- name: known_memories
-- What is so of a user and can be said anew: the latest under keys with a subject, episodes left out.
SELECT key, content FROM memory.memory_details
 WHERE tenant_id = $1 AND agent_id = $2 AND user_id = $3 AND valid_until IS NULL
   AND key LIKE '%/%' AND NOT labels ? 'minion.episode'
 ORDER BY update_time DESC LIMIT $4;

-- name: erased_time
-- When a user was last erased; NULL when never.
SELECT erase_time FROM memory.erased_subjects
 WHERE tenant_id = $1 AND subject_digest = memory.subject_digest($1, $2);

-- name: lock_scope
-- Locks a scope, as whoever writes its memories does.
SELECT memory.lock_scopes($1, ARRAY[$2::uuid], ARRAY[$3::text]);

-- name: lock_job
-- Locks a job for its worker; no row when it is another's by now, or was erased.
SELECT job_id FROM memory.extraction_jobs
 WHERE tenant_id = $1 AND job_id = $2 AND epoch = $3 AND state = 'running' FOR UPDATE;

-- name: memories_by_key
-- What stands under keys of a scope.
SELECT details.* FROM unnest($4::text[]) AS wanted (key)
 CROSS JOIN LATERAL (SELECT * FROM memory.memory_details d
                      WHERE d.tenant_id = $1 AND d.agent_id = $2 AND d.user_id = $3 AND d.key = wanted.key LIMIT 1) details;

-- name: memories_by_id
-- Memories by their ids, in their order.
SELECT details.* FROM unnest($2::uuid[]) WITH ORDINALITY AS wanted (memory_id, position)
 CROSS JOIN LATERAL (SELECT * FROM memory.memory_details d
                      WHERE d.tenant_id = $1 AND d.memory_id = wanted.memory_id LIMIT 1) details
 ORDER BY wanted.position;

-- name: store_drawn
-- Stores memories as an extraction does.
SELECT memory.store_memories($1, NULL, NULL, $2, $3, 'extracted', $4, $5);

-- name: end_drawn
-- Ends a memory that another takes the place of.
SELECT memory.end_memory($1, $2, $3, $4, 'extracted', $5, $6);

-- name: file_away
-- Files a superseded memory away from its key.
SELECT memory.file_away($1, $2);

-- name: complete_job
-- Ends a job that is done.
UPDATE memory.extraction_jobs
   SET state = 'done', error = '', owner = NULL, lease_until = NULL, created_count = $3, updated_count = $4,
       deleted_count = $5, unchanged_count = $6, refused_count = $7, touched = $8
 WHERE tenant_id = $1 AND job_id = $2;

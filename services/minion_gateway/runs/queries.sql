-- name: accept_run
-- Accepts a run: its row, lease, first intents and first event.
SELECT outcome, accepted_run, accept_time
  FROM gateway.accept_run($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                          $21, $22);

-- name: advance_run
-- Moves a run on by one change; NULL to a ghost.
SELECT gateway.advance_run($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17);

-- name: end_run
-- Moves a run out of WORKING and starts the next one of its session; no row to a ghost.
SELECT change_time, next_run
  FROM gateway.end_run($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                       $22, $23);

-- name: append_events
-- Appends a batch of events of several runs; returns those whose fence held.
SELECT appended_run, append_time FROM gateway.append_events($1);

-- name: read_run
-- A run.
SELECT * FROM gateway.read_run($1, $2);

-- name: read_events
-- Events of a run after a sequence, oldest first.
SELECT sequence, kind, payload, create_time FROM gateway.read_events($1, $2, $3, $4);

-- name: lease_runs
-- Leases runs whose lease ran out.
SELECT tenant_id, run_id FROM gateway.lease_runs($1, $2, $3);

-- name: runs_waiting
-- How many runs wait for a replica, and for how long the oldest has.
SELECT waiting, seconds FROM gateway.runs_waiting();

-- name: renew_leases
-- Renews leases; those not returned are lost.
SELECT run_id FROM gateway.renew_leases($1, $2, $3, $4, $5);

-- name: release_leases
-- Gives all leases of a replica back.
SELECT gateway.release_leases($1);

-- name: load_run
-- A run that a replica has leased, with the agent it was accepted with.
SELECT r.*, s.snapshot, extract(epoch FROM now() - r.start_time)::double precision AS elapsed
  FROM gateway.runs r
  JOIN gateway.agent_snapshots s ON s.tenant_id = r.tenant_id AND s.digest = r.agent_digest
 WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.owner = $3 AND r.state = 'WORKING';

-- name: list_steps
-- The steps of a run, in order.
SELECT sequence, kind, state, attempt, intent, result FROM gateway.run_steps
 WHERE tenant_id = $1 AND run_id = $2 ORDER BY sequence;

-- name: find_shown_text
-- The first event with text of a model step's attempt.
SELECT min(sequence) FROM gateway.run_events
 WHERE tenant_id = $1 AND run_id = $2 AND kind = 'text_added'
   AND (payload ->> 'step')::integer = $3 AND (payload ->> 'attempt')::integer = $4;

-- name: find_told
-- The events that told what the model is shown besides the session's messages: memories, a summary.
SELECT kind, payload FROM gateway.run_events
 WHERE tenant_id = $1 AND run_id = $2 AND kind IN ('memories_recalled', 'summary_used') ORDER BY sequence;

-- name: find_request
-- The run of a request_id.
SELECT run_id, request_digest FROM gateway.runs WHERE tenant_id = $1 AND request_id = $2;

-- name: list_runs
-- Runs of a tenant by any filters, newest first, with the bytes that they take up to each, as far as the first that
-- passes $7, and two at least. A Struct takes up to six times its JSON, of which there are 16 KiB at most. (Postgres may
-- write more: it spells 1e308 out.)
SELECT run_id, session_id, agent_id, agent_revision, user_id, state, answer, error_reason, error_message, input_tokens,
       output_tokens, cached_tokens, reasoning_tokens, cost_nanos, unpriced_steps, step_count, recovery_count,
       last_event_sequence, trace_id, metadata, create_time, end_time, bytes
  FROM (SELECT r.*, b.own, sum(b.own) OVER w AS bytes, row_number() OVER w AS place
          FROM gateway.runs r
         CROSS JOIN LATERAL (SELECT 2048 + octet_length(r.answer) + octet_length(coalesce(r.error_message, ''))
                                    + 6 * least(octet_length(r.metadata::text), 16384) AS own) b
         WHERE r.tenant_id = $1 AND ($2::uuid IS NULL OR r.session_id = $2)
           AND ($3::uuid IS NULL OR r.agent_id = $3) AND ($4::text IS NULL OR r.state = $4)
           AND ($5::uuid IS NULL OR r.run_id < $5)
        WINDOW w AS (ORDER BY r.run_id DESC)
         ORDER BY r.run_id DESC LIMIT $6) listed
 WHERE bytes - own <= $7 OR place = 2 ORDER BY run_id DESC;

-- name: list_session_runs
-- Runs of a session, newest first; as `list_runs`.
SELECT run_id, session_id, agent_id, agent_revision, user_id, state, answer, error_reason, error_message, input_tokens,
       output_tokens, cached_tokens, reasoning_tokens, cost_nanos, unpriced_steps, step_count, recovery_count,
       last_event_sequence, trace_id, metadata, create_time, end_time, bytes
  FROM (SELECT r.*, b.own, sum(b.own) OVER w AS bytes, row_number() OVER w AS place
          FROM gateway.runs r
         CROSS JOIN LATERAL (SELECT 2048 + octet_length(r.answer) + octet_length(coalesce(r.error_message, ''))
                                    + 6 * least(octet_length(r.metadata::text), 16384) AS own) b
         WHERE r.tenant_id = $1 AND r.session_id = $2 AND ($3::uuid IS NULL OR r.agent_id = $3)
           AND ($4::text IS NULL OR r.state = $4) AND ($5::uuid IS NULL OR r.run_id < $5)
        WINDOW w AS (ORDER BY r.run_id DESC)
         ORDER BY r.run_id DESC LIMIT $6) listed
 WHERE bytes - own <= $7 OR place = 2 ORDER BY run_id DESC;

-- name: list_agent_runs
-- Runs of an agent, newest first; as `list_runs`.
SELECT run_id, session_id, agent_id, agent_revision, user_id, state, answer, error_reason, error_message, input_tokens,
       output_tokens, cached_tokens, reasoning_tokens, cost_nanos, unpriced_steps, step_count, recovery_count,
       last_event_sequence, trace_id, metadata, create_time, end_time, bytes
  FROM (SELECT r.*, b.own, sum(b.own) OVER w AS bytes, row_number() OVER w AS place
          FROM gateway.runs r
         CROSS JOIN LATERAL (SELECT 2048 + octet_length(r.answer) + octet_length(coalesce(r.error_message, ''))
                                    + 6 * least(octet_length(r.metadata::text), 16384) AS own) b
         WHERE r.tenant_id = $1 AND $2::uuid IS NULL AND r.agent_id = $3
           AND ($4::text IS NULL OR r.state = $4) AND ($5::uuid IS NULL OR r.run_id < $5)
        WINDOW w AS (ORDER BY r.run_id DESC)
         ORDER BY r.run_id DESC LIMIT $6) listed
 WHERE bytes - own <= $7 OR place = 2 ORDER BY run_id DESC;

-- name: list_run_steps
-- Steps of a run after one of them, in order, each with what the bill has of it and how its last attempt failed.
SELECT s.sequence, s.kind, s.state, s.attempt, s.start_time, s.end_time, s.intent ->> 'name' AS tool,
       s.intent ->> 'call_id' AS call_id, s.result ->> 'blob_id' AS blob_id, t.model, t.reason,
       CASE WHEN s.kind = 'summary' THEN (s.result ->> 'last_sequence')::bigint END AS summarized, l.step_sequence AS paid,
       l.cost_nanos, l.input_tokens, l.output_tokens, l.cached_tokens, l.reasoning_tokens
  FROM gateway.run_steps s
  LEFT JOIN gateway.ledger l ON l.tenant_id = $1 AND l.run_id = $2 AND l.step_sequence = s.sequence
  LEFT JOIN gateway.attempts t ON t.tenant_id = $1 AND t.run_id = $2 AND t.step_sequence = s.sequence
        AND t.attempt = s.attempt
 WHERE s.tenant_id = $1 AND s.run_id = $2 AND s.sequence > $3::bigint
 ORDER BY s.sequence LIMIT $4;

-- name: insert_rollout
-- Starts a rollout with its first step.
INSERT INTO registry.rollouts (tenant_id, rollout_id, agent_id, candidate_revision, baseline_revision, steps,
                               basis_points, guardrails, evidence, principal)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
RETURNING rollout_id, agent_id, candidate_revision, baseline_revision, steps, step_index, basis_points, guardrails,
          evidence, status, abort_reason, breached_guardrail, last_check, principal, version, create_time, updated_at,
          step_start_time, end_time;

-- name: get_rollout
-- A rollout by its id.
SELECT rollout_id, agent_id, candidate_revision, baseline_revision, steps, step_index, basis_points, guardrails,
       evidence, status, abort_reason, breached_guardrail, last_check, principal, version, create_time, updated_at,
       step_start_time, end_time
  FROM registry.rollouts
 WHERE tenant_id = $1 AND rollout_id = $2;

-- name: lock_rollout
-- A rollout by its id, held until the transaction ends. Its agent is locked already: every writer takes that first.
SELECT rollout_id, agent_id, candidate_revision, baseline_revision, steps, step_index, basis_points, guardrails,
       evidence, status, abort_reason, breached_guardrail, last_check, principal, version, create_time, updated_at,
       step_start_time, end_time
  FROM registry.rollouts
 WHERE tenant_id = $1 AND rollout_id = $2
   FOR UPDATE;

-- name: find_running
-- The rollout of an agent that runs.
SELECT rollout_id FROM registry.rollouts WHERE tenant_id = $1 AND agent_id = $2 AND status = 'running';

-- name: move_rollout
-- Takes a locked rollout to another step.
UPDATE registry.rollouts
   SET step_index = $3, basis_points = $4, step_start_time = now(), version = version + 1
 WHERE tenant_id = $1 AND rollout_id = $2
RETURNING rollout_id, agent_id, candidate_revision, baseline_revision, steps, step_index, basis_points, guardrails,
          evidence, status, abort_reason, breached_guardrail, last_check, principal, version, create_time, updated_at,
          step_start_time, end_time;

-- name: end_rollout
-- Ends a locked rollout.
UPDATE registry.rollouts
   SET status = $3, basis_points = $4, abort_reason = $5, breached_guardrail = $6, end_time = now(),
       version = version + 1
 WHERE tenant_id = $1 AND rollout_id = $2
RETURNING rollout_id, agent_id, candidate_revision, baseline_revision, steps, step_index, basis_points, guardrails,
          evidence, status, abort_reason, breached_guardrail, last_check, principal, version, create_time, updated_at,
          step_start_time, end_time;

-- name: record_check
-- Keeps what a running rollout was judged by, and says when to look again.
UPDATE registry.rollouts SET last_check = $3, check_due_time = now() + $4
 WHERE tenant_id = $1 AND rollout_id = $2 AND status = 'running';

-- name: claim_rollouts
-- Takes rollouts that are due, of all tenants.
SELECT tenant_id, rollout_id FROM registry.claim_rollouts($1, $2);

-- name: list_rollouts
-- A page of rollouts before a place, newest first.
SELECT rollout_id, agent_id, candidate_revision, baseline_revision, steps, step_index, basis_points, guardrails,
       evidence, status, abort_reason, breached_guardrail, last_check, principal, version, create_time, updated_at,
       step_start_time, end_time
  FROM registry.rollouts
 WHERE tenant_id = $1 AND (create_time, rollout_id) < ($2, $3)
 ORDER BY create_time DESC, rollout_id DESC LIMIT $4;

-- name: list_rollouts_by_status
-- The same of one status.
SELECT rollout_id, agent_id, candidate_revision, baseline_revision, steps, step_index, basis_points, guardrails,
       evidence, status, abort_reason, breached_guardrail, last_check, principal, version, create_time, updated_at,
       step_start_time, end_time
  FROM registry.rollouts
 WHERE tenant_id = $1 AND (create_time, rollout_id) < ($2, $3) AND status = $5
 ORDER BY create_time DESC, rollout_id DESC LIMIT $4;

-- name: list_rollouts_by_agent
-- The same of one agent; the status looks at what that gives.
SELECT rollout_id, agent_id, candidate_revision, baseline_revision, steps, step_index, basis_points, guardrails,
       evidence, status, abort_reason, breached_guardrail, last_check, principal, version, create_time, updated_at,
       step_start_time, end_time
  FROM registry.rollouts
 WHERE tenant_id = $1 AND (create_time, rollout_id) < ($2, $3) AND agent_id = $5
   AND ($6::text IS NULL OR status = $6)
 ORDER BY create_time DESC, rollout_id DESC LIMIT $4;

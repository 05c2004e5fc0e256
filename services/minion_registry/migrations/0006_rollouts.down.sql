-- Takes rollouts away: the live revisions take all sessions again.
UPDATE registry.agents SET rollout_id = NULL WHERE rollout_id IS NOT NULL;
DROP TABLE registry.rollouts;
DROP FUNCTION registry.guard_rollout();

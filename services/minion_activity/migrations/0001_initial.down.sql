DROP VIEW IF EXISTS activity.agent_stats;
DROP FUNCTION IF EXISTS activity.sum_up(uuid, uuid, timestamptz, timestamptz);
DROP TABLE activity.activities;

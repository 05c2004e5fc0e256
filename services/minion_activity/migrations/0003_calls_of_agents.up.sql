-- What the calls in an agent's figures are counted from, without the rows and their contents: those of a time alone, as
-- a rollout asks for them every few seconds, however much the agent did before. In the order of the agent's list, which
-- may be of calls alone.
CREATE INDEX activities_calls ON activity.activities (tenant_id, agent_id, start_time DESC, activity_id DESC)
    INCLUDE (agent_revision, kind, status) WHERE kind IN ('llm_call', 'tool_call') AND agent_id IS NOT NULL;

-- Takes the registry's tables away, with all that they hold.
DROP TABLE registry.changes, registry.idempotency_keys, registry.agent_tools, registry.tool_versions, registry.tools,
    registry.agent_capabilities, registry.agent_labels, registry.agent_revisions, registry.agents, registry.api_keys,
    registry.tenants;
DROP FUNCTION registry.guard_agent(), registry.refuse_update(), registry.set_updated_at();

"""What an agent's card says: an `AgentCard` of A2A 1.0 in its JSON form (specification 4.4)."""

from collections.abc import Iterator
from typing import Any

from minion_registry.bindings.domain import AgentTool, BindingState, ResolvedAgent

_PROTOCOL_VERSION = "1.0"
# In the order in which a client should try them.
_BINDINGS = ("JSONRPC", "HTTP+JSON")
_SCHEME = "bearer"
_TEXT, _JSON = "text/plain", "application/json"


def card(resolved: ResolvedAgent, url: str) -> dict[str, Any]:
    """Makes the card of an agent in its live revision.

    `url` is where clients reach an agent, with `{agent_id}` for its id; empty when they can't. Blocked tools are no
    skills. Every field that the protocol requires has a value, as its clients expect, but for the interfaces.
    """
    agent, contents = resolved.agent, resolved.agent.contents
    name = contents.display_name or contents.name
    address = url.replace("{agent_id}", str(agent.agent_id))
    skills = [*(_capability(capability) for capability in contents.capabilities), *_tools(resolved.tools)]
    return {
        "name": name,
        "description": contents.description or f"The agent {name}.",
        "supportedInterfaces": [
            {"url": address, "protocolBinding": binding, "protocolVersion": _PROTOCOL_VERSION}
            for binding in _BINDINGS
            if address
        ],
        "version": str(agent.live_revision or agent.revision),
        "capabilities": {"streaming": True, "pushNotifications": False, "extendedAgentCard": False},
        "securitySchemes": {
            _SCHEME: {"httpAuthSecurityScheme": {"scheme": "bearer", "description": "An API key of the tenant."}}
        },
        "securityRequirements": [{"schemes": {_SCHEME: {"list": []}}}],
        "defaultInputModes": [_TEXT],
        "defaultOutputModes": [_TEXT if contents.llm.response_schema is None else _JSON],
        "skills": skills or [_skill("conversation", name, f"Talks with {name}.", contents.behavior_type.value)],
    }


def _capability(capability: str) -> dict[str, Any]:
    return _skill(f"capability/{capability}", capability, f"Can do: {capability}.", capability)


def _tools(tools: tuple[AgentTool, ...]) -> Iterator[dict[str, Any]]:
    for bound in tools:
        # One that changed since it was bound is blocked until it is bound again.
        if bound.state is BindingState.USABLE:
            contents = bound.tool.contents
            yield _skill(f"tool/{contents.name}", contents.name, contents.description, "tool", contents.effect.value)


def _skill(skill_id: str, name: str, description: str, *tags: str) -> dict[str, Any]:
    return {"id": skill_id, "name": name, "description": description, "tags": list(tags)}

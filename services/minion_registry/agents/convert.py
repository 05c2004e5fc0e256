"""Between the contract's agents and ours."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key
from uuid_utils.compat import uuid7

from minion_registry import requests
from minion_registry.agents.domain import (
    Agent,
    AgentChange,
    AgentChangeKind,
    AgentContents,
    AgentFilter,
    AgentName,
    AgentStatus,
    BehaviorSettings,
    BehaviorType,
    ContextPolicy,
    LlmConfig,
    MemoryPolicy,
    SummaryPolicy,
)

_SHORTEST = timedelta(seconds=1)
_LONGEST = timedelta(hours=1)
_FILTER_LABELS = 8

_STATUSES: Mapping[agent_pb2.AgentStatus.ValueType, AgentStatus] = {
    agent_pb2.AGENT_STATUS_DRAFT: AgentStatus.DRAFT,
    agent_pb2.AGENT_STATUS_ACTIVE: AgentStatus.ACTIVE,
    agent_pb2.AGENT_STATUS_INACTIVE: AgentStatus.INACTIVE,
    agent_pb2.AGENT_STATUS_ARCHIVED: AgentStatus.ARCHIVED,
}
_STATUSES_TO_PROTO = {status: value for value, status in _STATUSES.items()}
_KINDS_TO_PROTO: Mapping[AgentChangeKind, agent_pb2.AgentChangeKind.ValueType] = {
    AgentChangeKind.SYNCED: agent_pb2.AGENT_CHANGE_KIND_SYNCED,
    AgentChangeKind.CREATED: agent_pb2.AGENT_CHANGE_KIND_CREATED,
    AgentChangeKind.UPDATED: agent_pb2.AGENT_CHANGE_KIND_UPDATED,
    AgentChangeKind.STATUS_CHANGED: agent_pb2.AGENT_CHANGE_KIND_STATUS_CHANGED,
    AgentChangeKind.TOOLS_CHANGED: agent_pb2.AGENT_CHANGE_KIND_TOOLS_CHANGED,
    AgentChangeKind.DELETED: agent_pb2.AGENT_CHANGE_KIND_DELETED,
    AgentChangeKind.ROLLOUT_CHANGED: agent_pb2.AGENT_CHANGE_KIND_ROLLOUT_CHANGED,
}


class Named(Protocol):
    """A request that names an agent by id or by name."""

    @property
    def agent_id(self) -> str: ...
    @property
    def name(self) -> str: ...


def create_from_proto(request: pb.CreateAgentRequest) -> tuple[UUID, AgentContents, Key | None]:
    """Reads an agent that is to be. Raises InvalidArgument with all faults."""
    violations = Violations()
    agent_id = requests.identifier_or_new(violations, "agent.agent_id", request.agent.agent_id, uuid7())
    contents = AgentContents(**{field: read(violations, request.agent) for field, read in _FIELDS.items()})
    key = requests.key(violations, request)
    violations.raise_if_any()
    return agent_id, contents, key


def update_from_proto(request: pb.UpdateAgentRequest) -> tuple[UUID, dict[str, Any], str, Key | None]:
    """Reads the agent, the fields that change with their new values, and the etag. Raises InvalidArgument."""
    violations = Violations()
    agent_id = violations.identifier("agent.agent_id", request.agent.agent_id)
    paths: Collection[str] = ()
    if request.update_mask.paths:
        paths = wire.mask_paths(request.update_mask, _FIELDS, "update_mask", violations)
    else:
        violations.add("update_mask", "is required")
    changes = {field: read(violations, request.agent) for field, read in _FIELDS.items() if field in paths}
    key = requests.key(violations, request)
    violations.raise_if_any()
    return agent_id, changes, request.etag, key


def versioned_from_proto(
    request: pb.DeleteAgentRequest | pb.ActivateAgentRequest | pb.DeactivateAgentRequest | pb.ArchiveAgentRequest,
) -> tuple[UUID, str, Key | None]:
    """Reads the agent and the etag. Raises InvalidArgument with all faults."""
    violations = Violations()
    agent_id = violations.identifier("agent_id", request.agent_id)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return agent_id, request.etag, key


def get_from_proto(request: pb.GetAgentRequest) -> tuple[AgentName, int]:
    """Reads which agent and revision are meant. Raises InvalidArgument with all faults."""
    violations = Violations()
    named = _named(violations, request)
    if request.revision < 0:
        violations.add("revision", f"must not be negative, is {request.revision}")
    violations.raise_if_any()
    return named, request.revision


def named_from_proto(request: pb.ResolveAgentRequest) -> AgentName:
    """Reads which agent is meant. Raises InvalidArgument with all faults."""
    violations = Violations()
    named = _named(violations, request)
    violations.raise_if_any()
    return named


def list_from_proto(request: pb.ListAgentsRequest) -> tuple[AgentFilter, int, str]:
    """Reads the filters, the page size and the token. Raises InvalidArgument with all faults."""
    violations = Violations()
    status = _STATUSES.get(request.status)
    if request.status and status is None:
        violations.add("status", "is no known status")
    selected = AgentFilter(
        status=status,
        behavior_type=violations.length("behavior_type", request.behavior_type, maximum=64) or None,
        capability=violations.length("capability", request.capability, maximum=64) or None,
        labels=requests.labels(violations, "labels", request.labels, maximum=_FILTER_LABELS),
    )
    size = requests.page_size(violations, request.page_size)
    violations.raise_if_any()
    return selected, size, request.page_token


def hanging_from_proto(
    request: pb.ListAgentRevisionsRequest | pb.ListAgentToolsRequest,
) -> tuple[UUID, int, str]:
    """Reads the agent, the page size and the token of a list that hangs on it. Raises InvalidArgument."""
    violations = Violations()
    agent_id = violations.identifier("agent_id", request.agent_id)
    size = requests.page_size(violations, request.page_size)
    violations.raise_if_any()
    return agent_id, size, request.page_token


def agents_to_proto(agents: Sequence[Agent]) -> list[agent_pb2.Agent]:
    """Writes agents."""
    return [agent_to_proto(agent) for agent in agents]


def agent_to_proto(agent: Agent) -> agent_pb2.Agent:
    """Writes an agent."""
    contents, llm, behavior = agent.contents, agent.contents.llm, agent.contents.behavior
    return agent_pb2.Agent(
        agent_id=str(agent.agent_id),
        name=contents.name,
        display_name=contents.display_name,
        description=contents.description,
        behavior_type=contents.behavior_type.value,
        instructions=contents.instructions,
        llm=agent_pb2.LlmConfig(model=llm.model, temperature=llm.temperature, max_output_tokens=llm.max_output_tokens),
        capabilities=contents.capabilities,
        behavior=agent_pb2.BehaviorSettings(
            max_steps=behavior.max_steps,
            max_duration=None if behavior.max_duration is None else wire.to_duration(behavior.max_duration),
            memory=agent_pb2.MemoryPolicy(
                recall=behavior.memory.recall,
                max_memories=behavior.memory.max_memories,
                min_score=behavior.memory.min_score,
                episodes=behavior.memory.episodes,
                extract=behavior.memory.extract,
                extractor=behavior.memory.extractor,
                extract_after_messages=behavior.memory.extract_after_messages,
            ),
            context=agent_pb2.ContextPolicy(
                token_budget=behavior.context.token_budget, max_messages=behavior.context.max_messages
            ),
            summary=agent_pb2.SummaryPolicy(
                enabled=behavior.summary.enabled,
                trigger_tokens=behavior.summary.trigger_tokens,
                target_tokens=behavior.summary.target_tokens,
                keep_messages=behavior.summary.keep_messages,
                model=behavior.summary.model,
            ),
        ),
        metadata=wire.to_struct(contents.metadata),
        labels=contents.labels,
        status=_STATUSES_TO_PROTO[agent.status],
        revision=agent.revision,
        etag=agent.etag,
        create_time=wire.to_timestamp(agent.create_time),
        update_time=wire.to_timestamp(agent.update_time),
    )


def change_to_proto(change: AgentChange) -> pb.WatchAgentsResponse:
    """Writes one change."""
    return pb.WatchAgentsResponse(
        cursor=change.cursor,
        kind=_KINDS_TO_PROTO[change.kind],
        agent_id=wire.optional_text(change.agent_id),
        tenant_id=wire.optional_text(change.tenant_id),
    )


def _named(violations: Violations, request: Named) -> AgentName:
    requests.either(violations, {"agent_id": request.agent_id, "name": request.name})
    agent_id = violations.optional_identifier("agent_id", request.agent_id)
    violations.length("name", request.name, maximum=63)
    return AgentName(agent_id=agent_id, name=request.name or None)


def _behavior_type(violations: Violations, agent: agent_pb2.Agent) -> BehaviorType:
    try:
        return BehaviorType(agent.behavior_type)
    except ValueError:
        known = ", ".join(kind.value for kind in BehaviorType)
        violations.add("agent.behavior_type", f"must be one of {known}")
        return BehaviorType.CONVERSATIONAL


def _llm(violations: Violations, agent: agent_pb2.Agent) -> LlmConfig:
    llm = agent.llm
    violations.length("agent.llm.model", llm.model, maximum=200)
    violations.between("agent.llm.temperature", llm.temperature, minimum=0, maximum=2)
    violations.between("agent.llm.max_output_tokens", llm.max_output_tokens, minimum=0, maximum=200_000)
    return LlmConfig(
        model=llm.model,
        temperature=llm.temperature if llm.HasField("temperature") else None,
        max_output_tokens=llm.max_output_tokens,
    )


def _capabilities(violations: Violations, agent: agent_pb2.Agent) -> tuple[str, ...]:
    violations.count("agent.capabilities", agent.capabilities, maximum=50)
    for index, capability in enumerate(agent.capabilities):
        violations.length(f"agent.capabilities[{index}]", capability, minimum=1, maximum=64)
    # Said twice is said once.
    return tuple(dict.fromkeys(agent.capabilities))


def _behavior(violations: Violations, agent: agent_pb2.Agent) -> BehaviorSettings:
    behavior, context = agent.behavior, agent.behavior.context
    path = "agent.behavior"
    violations.between(f"{path}.max_steps", behavior.max_steps, minimum=0, maximum=100)
    max_duration = None
    if behavior.HasField("max_duration"):
        max_duration = wire.from_duration(behavior.max_duration, f"{path}.max_duration", violations)
        if not _SHORTEST <= max_duration <= _LONGEST:
            violations.add(f"{path}.max_duration", "must be between 1 s and 1 h")
    memory = _memory(violations, f"{path}.memory", behavior.memory)
    if context.token_budget:
        violations.between(f"{path}.context.token_budget", context.token_budget, minimum=256, maximum=1_000_000)
    violations.between(f"{path}.context.max_messages", context.max_messages, minimum=0, maximum=1_000)
    return BehaviorSettings(
        max_steps=behavior.max_steps,
        max_duration=max_duration,
        memory=memory,
        context=ContextPolicy(token_budget=context.token_budget, max_messages=context.max_messages),
        summary=_summary(violations, f"{path}.summary", behavior.summary),
    )


def _memory(violations: Violations, path: str, memory: agent_pb2.MemoryPolicy) -> MemoryPolicy:
    violations.between(f"{path}.max_memories", memory.max_memories, minimum=0, maximum=50)
    violations.between(f"{path}.min_score", memory.min_score, minimum=-1, maximum=1)
    violations.length(f"{path}.extractor", memory.extractor, maximum=63)
    after = memory.extract_after_messages
    if after:
        violations.between(f"{path}.extract_after_messages", after, minimum=2, maximum=1_000)
    return MemoryPolicy(
        recall=memory.recall,
        max_memories=memory.max_memories,
        min_score=memory.min_score if memory.HasField("min_score") else None,
        episodes=memory.episodes,
        extract=memory.extract,
        extractor=memory.extractor,
        extract_after_messages=after,
    )


def _summary(violations: Violations, path: str, summary: agent_pb2.SummaryPolicy) -> SummaryPolicy:
    if summary.trigger_tokens:
        violations.between(f"{path}.trigger_tokens", summary.trigger_tokens, minimum=256, maximum=1_000_000)
    if summary.target_tokens:
        violations.between(f"{path}.target_tokens", summary.target_tokens, minimum=64, maximum=16_000)
    violations.between(f"{path}.keep_messages", summary.keep_messages, minimum=0, maximum=1_000)
    violations.length(f"{path}.model", summary.model, maximum=200)
    return SummaryPolicy(
        enabled=summary.enabled,
        trigger_tokens=summary.trigger_tokens,
        target_tokens=summary.target_tokens,
        keep_messages=summary.keep_messages if summary.HasField("keep_messages") else None,
        model=summary.model,
    )


# What a caller may write, by field of the contract and of `AgentContents`; they have the same names.
_FIELDS: Mapping[str, Callable[[Violations, agent_pb2.Agent], Any]] = {
    "name": lambda found, agent: requests.name(found, "agent.name", agent.name),
    "display_name": lambda found, agent: found.length("agent.display_name", agent.display_name, maximum=200),
    "description": lambda found, agent: found.length("agent.description", agent.description, maximum=2_000),
    "behavior_type": _behavior_type,
    "instructions": lambda found, agent: found.length("agent.instructions", agent.instructions, maximum=100_000),
    "llm": _llm,
    "capabilities": _capabilities,
    "behavior": _behavior,
    "metadata": lambda found, agent: requests.json_object(found, "agent.metadata", agent.metadata),
    "labels": lambda found, agent: requests.labels(found, "agent.labels", agent.labels),
}

"""The registry, as the gateway knows agents from it."""

import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from minion.registry.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc, tool_pb2
from minion_errors import Violations
from minion_grpc import peer_call
from minion_grpc.wire import from_struct, off_loop

from minion_gateway.agents import domain
from minion_gateway.agents.domain import (
    AgentSnapshot,
    AgentStatus,
    BoundTool,
    Resolution,
    ResolvedAgent,
    Rollout,
    SummaryPolicy,
    ToolEffect,
)

_CALL_SECONDS = 10.0
_log = structlog.get_logger()
# The tools of an agent take 3 MiB at most, the agent itself and a rollout's candidate as good as one each.
MAXIMUM_BYTES = 8 * 1024 * 1024
RETRYABLE = ("/minion.registry.v1.AgentService/ResolveAgent",)


class ChangeKind(enum.Enum):
    """What a change of the feed means to the cache."""

    SYNCED = "synced"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class AgentChange:
    """One change; SYNCED concerns no agent, a change without an agent all of its tenant's."""

    kind: ChangeKind
    cursor: str
    tenant_id: UUID | None = None
    agent_id: UUID | None = None


class RegistryPeer:
    """The registry's agents."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: agent_service_pb2_grpc.AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(channel)

    async def resolve(self, agent_id: UUID) -> Resolution:
        """Returns an agent of the caller's tenant as it is now. Raises NotFound (AGENT_NOT_FOUND)."""
        with peer_call("registry"):
            answer = await self._stub.ResolveAgent(
                agent_service_pb2.ResolveAgentRequest(agent_id=str(agent_id)), timeout=_CALL_SECONDS
            )
        return await off_loop(_resolution, answer.resolved_agent, answer.ByteSize())

    async def watch(self, cursor: str) -> AsyncGenerator[AgentChange, None]:
        """Yields changes of all tenants' agents, after a cursor or from now on; outside of any call."""
        call = self._stub.WatchAgents(agent_service_pb2.WatchAgentsRequest(cursor=cursor, include_tools=True))
        try:
            with peer_call("registry"):
                async for change in call:
                    yield _change(change)
        finally:
            # gRPC never collects a stream that was left.
            call.cancel()


def _change(change: agent_service_pb2.WatchAgentsResponse) -> AgentChange:
    if change.kind == agent_pb2.AGENT_CHANGE_KIND_SYNCED:
        return AgentChange(ChangeKind.SYNCED, change.cursor)
    agent_id = UUID(change.agent_id) if change.agent_id else None
    return AgentChange(ChangeKind.CHANGED, change.cursor, UUID(change.tenant_id), agent_id)


def _resolution(resolved: agent_pb2.ResolvedAgent) -> Resolution:
    tools = tuple(_tool(bound) for bound in _callable(resolved))
    status = AgentStatus[agent_pb2.AgentStatus.Name(resolved.agent.status).removeprefix("AGENT_STATUS_")]
    rollout = None
    if resolved.HasField("rollout"):
        given = resolved.rollout
        candidate = _snapshot(given.candidate, tools)
        rollout = Rollout(UUID(given.rollout_id), given.basis_points, given.salt, candidate)
    return Resolution(status, _snapshot(resolved.agent, tools), rollout)


def _snapshot(agent: agent_pb2.Agent, tools: tuple[BoundTool, ...]) -> AgentSnapshot:
    behavior = agent.behavior
    memory, context = behavior.memory, behavior.context
    snapshot = ResolvedAgent(
        agent_id=UUID(agent.agent_id),
        name=agent.name,
        revision=agent.revision,
        behavior_type=agent.behavior_type,
        instructions=agent.instructions,
        model=agent.llm.model,
        temperature=agent.llm.temperature if agent.llm.HasField("temperature") else None,
        max_output_tokens=agent.llm.max_output_tokens or domain.DEFAULT_OUTPUT_TOKENS,
        max_steps=behavior.max_steps or domain.DEFAULT_STEPS,
        max_seconds=_seconds(behavior.max_duration, domain.DEFAULT_SECONDS),
        recalls=memory.recall,
        max_memories=memory.max_memories or domain.DEFAULT_MEMORIES,
        min_score=memory.min_score if memory.HasField("min_score") else domain.DEFAULT_MINIMUM_SCORE,
        token_budget=context.token_budget or domain.DEFAULT_TOKEN_BUDGET,
        max_messages=context.max_messages or domain.DEFAULT_MESSAGES,
        tools=tools,
        summary=_summary(behavior.summary),
        response_schema=_json(agent.llm.response_schema) if agent.llm.HasField("response_schema") else None,
    )
    return AgentSnapshot.of(snapshot)


def _callable(resolved: agent_pb2.ResolvedAgent) -> list[agent_pb2.AgentTool]:
    """Leaves out what is blocked (what was bound is what is called), and what is reached in no way that we know."""
    usable = [bound for bound in resolved.tools if _usable(bound)]
    reached = [bound for bound in usable if bound.tool.transport == tool_pb2.TOOL_TRANSPORT_BUILTIN]
    if len(reached) < len(usable):
        _log.info(
            "tools are not offered: this gateway calls builtins alone",
            agent_id=resolved.agent.agent_id,
            tools=[bound.tool.name for bound in usable if bound not in reached],
        )
    return reached


def _usable(bound: agent_pb2.AgentTool) -> bool:
    if bound.state == agent_pb2.BINDING_STATE_UNSPECIFIED:
        # A registry of the release before doesn't say, and knows no tool that is retired.
        return bound.bound_digest == bound.tool.digest
    return bound.state == agent_pb2.BINDING_STATE_USABLE


def _summary(policy: agent_pb2.SummaryPolicy) -> SummaryPolicy | None:
    if not policy.enabled:
        return None
    return SummaryPolicy(
        trigger_tokens=policy.trigger_tokens or domain.DEFAULT_TRIGGER_TOKENS,
        target_tokens=policy.target_tokens or domain.DEFAULT_TARGET_TOKENS,
        keep_messages=policy.keep_messages if policy.HasField("keep_messages") else domain.DEFAULT_KEPT_MESSAGES,
        model=policy.model,
    )


def _tool(bound: agent_pb2.AgentTool) -> BoundTool:
    tool = bound.tool
    # A registry of the release before doesn't merge: no tool of its has default settings.
    configuration = bound.merged_configuration if bound.HasField("merged_configuration") else bound.configuration
    return BoundTool(
        name=tool.name,
        description=tool.description,
        input_schema=_json(tool.input_schema),
        builtin=tool.builtin,
        effect=ToolEffect[tool_pb2.ToolEffect.Name(tool.effect).removeprefix("TOOL_EFFECT_")],
        time_limit_seconds=_seconds(tool.time_limit, domain.DEFAULT_TOOL_SECONDS),
        cost_per_call_nanos=tool.cost_per_call_nanos,
        configuration=_json(configuration),
        digest=tool.digest,
        # Unspecified means never, as the contract has it; what a later release may say is asked for.
        needs_approval=tool.approval not in (tool_pb2.TOOL_APPROVAL_NEVER, tool_pb2.TOOL_APPROVAL_UNSPECIFIED),
    )


def _seconds(duration: Duration, default: float) -> float:
    span = timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1_000)
    return span.total_seconds() or default


def _json(struct: Struct) -> dict[str, object]:
    # The registry has checked it.
    return from_struct(struct, "", Violations())

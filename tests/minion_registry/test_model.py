"""Whatever two tenants do to agents, tools, bindings and rollouts, in whatever order: what a simple model says, and no
row of the other."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from minion.registry.v1 import (
    agent_pb2,
    agent_service_pb2,
    rollout_pb2,
    rollout_service_pb2,
    tool_pb2,
    tool_service_pb2,
)
from minion_grpc import peer_errors
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, calling

_STEPS = (1_000, 5_000)
_STATUS = agent_pb2.AgentStatus
_TEXTS = ("Be brief.", "Be kind.", "Be exact.")
_MOVES = (
    *("create", "update", "stage", "roll back", "activate", "activate", "deactivate", "archive", "delete"),
    *("register", "change tool", "deprecate", "retire", "bind", "bind", "unbind"),
    *("start", "start", "advance", "promote", "promote unproven", "abort", "read"),
)
_ALLOWED = {
    ("draft", "active"),
    ("draft", "archived"),
    ("active", "inactive"),
    ("inactive", "active"),
    ("inactive", "archived"),
}
_PLAY = st.lists(
    st.tuples(
        st.sampled_from(_MOVES),
        st.integers(0, 1),  # whose
        st.integers(0, 7),  # which agent or rollout
        st.integers(0, 7),  # which tool, revision or text
        st.integers(0, 9),  # 0: the other tenant tries it first
    ),
    min_size=40,
    max_size=50,
)


@dataclass(slots=True)
class Agent:
    """What the model knows of an agent."""

    agent_id: str
    status: str = "draft"
    live: int = 1
    texts: list[str] = field(default_factory=lambda: [_TEXTS[0]])
    bound: dict[str, str] = field(default_factory=dict)
    rollout: "Rollout | None" = None

    @property
    def latest(self) -> int:
        return len(self.texts)


@dataclass(slots=True)
class Tool:
    """What the model knows of a tool."""

    tool_id: str
    name: str
    status: str
    digest: str
    text: str = _TEXTS[0]
    version: int = 1


@dataclass(slots=True)
class Rollout:
    """What the model knows of a rollout."""

    rollout_id: str
    agent: Agent
    candidate: int
    proven: bool
    step: int = 0
    status: str = "running"


@dataclass(slots=True)
class Tenant:
    """A tenant, and what the model knows of it."""

    caller: Caller
    agents: dict[str, Agent] = field(default_factory=dict)
    tools: dict[str, Tool] = field(default_factory=dict)
    rollouts: dict[str, Rollout] = field(default_factory=dict)


_Act = Callable[[Caller], Awaitable[Any]]


async def _play(registry: Served, moves: list[tuple[str, int, int, int, int]]) -> None:
    async with calling(registry) as first, calling(registry) as second:
        tenants = (Tenant(first), Tenant(second))
        for move, whose, one, other, stranger in moves:
            await _step(tenants[whose], tenants[1 - whose], move, one, other, tried_by_stranger=stranger == 0)
        for tenant in tenants:
            await _compare(tenant)
    # Hundreds of thousands of spans would make the collector of garbage stop everything for seconds.
    registry.collected.clear()


async def _step(tenant: Tenant, other: Tenant, move: str, one: int, two: int, *, tried_by_stranger: bool) -> None:
    agents, tools, rollouts = list(tenant.agents.values()), list(tenant.tools.values()), list(tenant.rollouts.values())
    agent = agents[one % len(agents)] if agents else None
    tool = tools[two % len(tools)] if tools else None
    rollout = rollouts[-1 - one % len(rollouts)] if rollouts else None
    if move == "create" or agent is None:
        made = await tenant.caller.create(name=f"a-{uuid4().hex[:12]}", instructions=_TEXTS[0])
        tenant.agents[made.agent_id] = Agent(made.agent_id)
        return
    if move == "register" or (tool is None and move in ("change tool", "deprecate", "retire", "bind", "unbind")):
        registered = await tenant.caller.register(name=f"t_{uuid4().hex[:12]}", description=_TEXTS[0])
        tenant.tools[registered.tool_id] = Tool(registered.tool_id, registered.name, "active", registered.digest)
        return
    if rollout is None and move in ("advance", "promote", "promote unproven", "abort"):
        move = "start"
    act, expected, done = _planned(tenant, move, agent, tool, rollout, two)
    if tried_by_stranger:
        code, _, _ = await _tried(act, other.caller)
        assert code is grpc.StatusCode.NOT_FOUND, f"a stranger's {move} ended with {code}"
    code, reason, answer = await _tried(act, tenant.caller)
    assert (reason or "") in expected, f"{move}: {code.name}/{reason}, expected {expected}"
    if not reason:
        done(answer)


async def _tried(act: _Act, caller: Caller) -> tuple[grpc.StatusCode, str | None, Any]:
    try:
        return grpc.StatusCode.OK, None, await act(caller)
    except grpc.aio.AioRpcError as error:
        return error.code(), peer_errors.reason_of(error), None


_Plan = tuple[_Act, set[str], Callable[[Any], None]]


def _planned(tenant: Tenant, move: str, agent: Agent, tool: Tool | None, rollout: Rollout | None, number: int) -> _Plan:
    """What to call, the reasons of which one is expected ("" is success), and what success means to the model."""
    if move in ("change tool", "deprecate", "retire"):
        assert tool is not None
        return _planned_tool(move, tool, number)
    if move in ("bind", "unbind"):
        assert tool is not None
        return _planned_binding(move, agent, tool)
    if move == "start":
        return _planned_start(tenant, agent, number)
    if move in ("advance", "promote", "promote unproven", "abort"):
        assert rollout is not None
        return _planned_rollout(move, rollout)
    return _planned_agent(tenant, move, agent, number)


def _planned_agent(tenant: Tenant, move: str, agent: Agent, number: int) -> _Plan:
    pb = agent_service_pb2
    agent_id = agent.agent_id
    closed = {"AGENT_STATUS_UNSUITABLE"} if agent.status == "archived" else set()
    running = {"ROLLOUT_RUNNING"} if agent.rollout is not None else set()
    if move in ("update", "stage"):
        text = _TEXTS[number % len(_TEXTS)]
        update = pb.UpdateAgentRequest(
            agent=agent_pb2.Agent(agent_id=agent_id, instructions=text),
            update_mask=FieldMask(paths=["instructions"]),
            stage=move == "stage",
        )

        def updated(_: Any) -> None:
            agent.texts.append(text)
            agent.live = agent.live if move == "stage" else agent.latest

        refused = closed | (running if move == "update" else set())
        return lambda caller: caller.agents.UpdateAgent(update), refused or {""}, updated
    if move == "roll back":
        revision = number % agent.latest + 1

        def rolled(_: Any) -> None:
            agent.texts.append(agent.texts[revision - 1])
            agent.live = agent.latest

        back = pb.RollbackAgentRequest(agent_id=agent_id, revision=revision)
        return lambda caller: caller.agents.RollbackAgent(back), (closed | running) or {""}, rolled
    if move == "delete":
        refused = set() if agent.status in ("draft", "archived") else {"AGENT_STATUS_UNSUITABLE"}

        def deleted(_: Any) -> None:
            del tenant.agents[agent_id]
            tenant.rollouts = {key: one for key, one in tenant.rollouts.items() if one.agent is not agent}

        return (
            lambda caller: caller.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=agent_id)),
            refused or {""},
            deleted,
        )
    if move in ("activate", "deactivate", "archive"):
        to = {"activate": "active", "deactivate": "inactive", "archive": "archived"}[move]
        refused = set() if (agent.status, to) in _ALLOWED else {"AGENT_TRANSITION_ILLEGAL"}
        refused |= running if to == "archived" else set()

        def moved(_: Any) -> None:
            agent.status = to

        calls: dict[str, _Act] = {
            "activate": lambda caller: caller.agents.ActivateAgent(pb.ActivateAgentRequest(agent_id=agent_id)),
            "deactivate": lambda caller: caller.agents.DeactivateAgent(pb.DeactivateAgentRequest(agent_id=agent_id)),
            "archive": lambda caller: caller.agents.ArchiveAgent(pb.ArchiveAgentRequest(agent_id=agent_id)),
        }
        return calls[move], refused or {""}, moved

    def read(answer: Any) -> None:
        _same(answer.agent, agent)

    return lambda caller: caller.agents.GetAgent(pb.GetAgentRequest(agent_id=agent_id)), {""}, read


def _planned_tool(move: str, tool: Tool, number: int) -> _Plan:
    pb, tool_id = tool_service_pb2, tool.tool_id
    retired = tool.status == "retired"
    if move == "change tool":
        text = _TEXTS[number % len(_TEXTS)]
        update = pb.UpdateToolRequest(
            tool=tool_pb2.Tool(tool_id=tool_id, description=text), update_mask=FieldMask(paths=["description"])
        )

        def changed(answer: Any) -> None:
            # The digest says what a binding was given for: it changes with the text, and with nothing else here.
            assert (answer.tool.digest == tool.digest) == (text == tool.text)
            tool.text, tool.digest, tool.version = text, answer.tool.digest, answer.tool.version

        return (
            lambda caller: caller.tools.UpdateTool(update),
            {"TOOL_STATUS_UNSUITABLE"} if retired else {""},
            changed,
        )
    to = {"deprecate": "deprecated", "retire": "retired"}[move]

    def moved(_: Any) -> None:
        tool.status = to

    legal = tool.status == "active" or (tool.status, to) == ("deprecated", "retired")
    calls: dict[str, _Act] = {
        "deprecate": lambda caller: caller.tools.DeprecateTool(pb.DeprecateToolRequest(tool_id=tool_id)),
        "retire": lambda caller: caller.tools.RetireTool(pb.RetireToolRequest(tool_id=tool_id)),
    }
    return calls[move], {""} if legal else {"TOOL_TRANSITION_ILLEGAL"}, moved


def _planned_binding(move: str, agent: Agent, tool: Tool) -> _Plan:
    pb = agent_service_pb2
    refused = {"AGENT_STATUS_UNSUITABLE"} if agent.status == "archived" else set()
    if move == "unbind":
        refused |= set() if tool.tool_id in agent.bound else {"BINDING_NOT_FOUND"}

        def unbound(_: Any) -> None:
            del agent.bound[tool.tool_id]

        take = pb.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id)
        return lambda caller: caller.agents.UnbindTool(take), refused or {""}, unbound
    if tool.status == "retired" or (tool.status == "deprecated" and tool.tool_id not in agent.bound):
        refused |= {"TOOL_STATUS_UNSUITABLE"}

    def bound(answer: Any) -> None:
        assert answer.agent_tool.bound_digest == tool.digest
        agent.bound[tool.tool_id] = tool.digest

    give = pb.BindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id, expected_digest=tool.digest)
    return lambda caller: caller.agents.BindTool(give), refused or {""}, bound


def _planned_start(tenant: Tenant, agent: Agent, number: int) -> _Plan:
    candidate = number % (agent.latest + 1) + 1
    refused = set() if agent.status == "active" else {"AGENT_STATUS_UNSUITABLE"}
    refused |= {"ROLLOUT_RUNNING"} if agent.rollout is not None else set()
    refused |= {"ROLLOUT_CANDIDATE_LIVE"} if candidate == agent.live else set()
    refused |= {"AGENT_NOT_FOUND"} if candidate > agent.latest else set()
    wanted = rollout_pb2.Rollout(
        agent_id=agent.agent_id,
        candidate_revision=candidate,
        steps=[rollout_pb2.RolloutStep(basis_points=share) for share in _STEPS],
        guardrails=rollout_pb2.RolloutGuardrails(max_error_rate=0.5),
        evidence=rollout_pb2.ROLLOUT_EVIDENCE_NONE if number % 2 else rollout_pb2.ROLLOUT_EVIDENCE_EVALUATION,
    )
    request = rollout_service_pb2.StartRolloutRequest(rollout=wanted, request_id=str(uuid7()))

    def started(answer: Any) -> None:
        made = Rollout(answer.rollout.rollout_id, agent, candidate, proven=not number % 2)
        tenant.rollouts[made.rollout_id] = agent.rollout = made

    return lambda caller: caller.rollouts.StartRollout(request), refused or {""}, started


def _planned_rollout(move: str, rollout: Rollout) -> _Plan:
    pb, rollout_id = rollout_service_pb2, rollout.rollout_id
    refused = set() if rollout.status == "running" else {"ROLLOUT_ENDED"}
    agent = rollout.agent
    if move == "advance":
        refused |= {"INVALID_FIELDS"} if rollout.step + 1 >= len(_STEPS) else set()

        def advanced(answer: Any) -> None:
            rollout.step += 1
            assert answer.rollout.basis_points == _STEPS[rollout.step]

        return (
            lambda caller: caller.rollouts.AdvanceRollout(pb.AdvanceRolloutRequest(rollout_id=rollout_id)),
            refused or {""},
            advanced,
        )
    if move == "abort":

        def aborted(_: Any) -> None:
            rollout.status, agent.rollout = "aborted", None

        return (
            lambda caller: caller.rollouts.AbortRollout(pb.AbortRolloutRequest(rollout_id=rollout_id, reason="x")),
            refused or {""},
            aborted,
        )
    # Nobody knows of an evaluation here: a rollout that asks for one is not promoted.
    refused |= {"ROLLOUT_EVIDENCE_MISSING"} if rollout.proven else set()

    def promoted(_: Any) -> None:
        rollout.status, agent.rollout, agent.live = "promoted", None, rollout.candidate

    return (
        lambda caller: caller.rollouts.PromoteRollout(pb.PromoteRolloutRequest(rollout_id=rollout_id)),
        refused or {""},
        promoted,
    )


def _same(found: agent_pb2.Agent, agent: Agent) -> None:
    status = _STATUS.Name(found.status).removeprefix("AGENT_STATUS_").lower()
    assert (status, found.live_revision, found.revision, found.latest_revision, found.instructions) == (
        agent.status,
        agent.live,
        agent.live,
        agent.latest,
        agent.texts[agent.live - 1],
    )


async def _compare(tenant: Tenant) -> None:
    """Compares all that the tenant can list with the model."""
    caller = tenant.caller
    listed = await caller.agents.ListAgents(agent_service_pb2.ListAgentsRequest(page_size=500))
    assert {agent.agent_id for agent in listed.agents} == set(tenant.agents)
    for found in listed.agents:
        _same(found, tenant.agents[found.agent_id])
    tools = await caller.tools.ListTools(tool_service_pb2.ListToolsRequest(page_size=500))
    assert {(one.tool_id, one.digest, one.version) for one in tools.tools} == {
        (one.tool_id, one.digest, one.version) for one in tenant.tools.values()
    }
    rollouts = await caller.rollouts.ListRollouts(rollout_service_pb2.ListRolloutsRequest(page_size=500))
    assert {one.rollout_id for one in rollouts.rollouts} == set(tenant.rollouts)
    for agent in tenant.agents.values():
        resolved = (
            await caller.agents.ResolveAgent(agent_service_pb2.ResolveAgentRequest(agent_id=agent.agent_id))
        ).resolved_agent
        _same(resolved.agent, agent)
        assert {(bound.tool.tool_id, bound.state) for bound in resolved.tools} == {
            (tool_id, _state(tenant.tools[tool_id], digest)) for tool_id, digest in agent.bound.items()
        }
        assert resolved.rollout.rollout_id == (agent.rollout.rollout_id if agent.rollout else "")
        if agent.rollout:
            assert resolved.rollout.basis_points == _STEPS[agent.rollout.step]
            assert resolved.rollout.candidate.revision == agent.rollout.candidate


def _state(tool: Tool, bound: str) -> agent_pb2.BindingState.ValueType:
    if tool.status == "retired":
        return agent_pb2.BINDING_STATE_TOOL_RETIRED
    return agent_pb2.BINDING_STATE_USABLE if bound == tool.digest else agent_pb2.BINDING_STATE_DIGEST_CHANGED


@settings(
    max_examples=12,
    deadline=None,
    # A play is long: what is found is read in it, not looked for in hundreds of shorter ones.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(moves=_PLAY)
async def test_two_tenants_keep_to_the_model(registry: Served, moves: list[tuple[str, int, int, int, int]]) -> None:
    await _play(registry, moves)


@pytest.mark.faults
@pytest.mark.timeout(900)
@settings(
    max_examples=500,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(moves=_PLAY)
async def test_two_tenants_keep_to_the_model_for_20000_steps(
    registry: Served, moves: list[tuple[str, int, int, int, int]]
) -> None:
    await _play(registry, moves)

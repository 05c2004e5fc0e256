"""What `minion agents apply` would change: the difference between documents and what the registry keeps."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2, tool_service_pb2
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.agent_files import (
    AGENT_FIELDS,
    TOOL_FIELDS,
    AgentDocument,
    Documents,
    ToolDocument,
    only,
    plain,
    pruned,
)
from minion_cli.connection import Services
from minion_cli.finding import find_agent_named, find_tool_named
from minion_cli.paging import take

_MOST_TOOLS = 128
# Longer texts are compared line by line.
_SHORT = 80
_ABSENT = "(none)"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: the field as a path, what it holds now, what it shall hold; None is nothing."""

    field: str
    old: Any
    new: Any

    def lines(self) -> Iterator[str]:
        """Writes it for people."""
        if isinstance(self.old, str | None) and isinstance(self.new, str | None) and self._is_long():
            yield f"{self.field}:"
            old, new = (self.old or "").splitlines(), (self.new or "").splitlines()
            yield from (f"  {line}" for line in difflib.unified_diff(old, new, lineterm="", n=1) if line[:2] != "--")
        else:
            yield f"{self.field}: {_shown(self.old)} -> {_shown(self.new)}"

    def _is_long(self) -> bool:
        return any(text is not None and ("\n" in text or len(text) > _SHORT) for text in (self.old, self.new))


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """What becomes of a tool; `current` is None where there is none yet."""

    wanted: tool_pb2.Tool
    current: tool_pb2.Tool | None
    changes: list[Change]

    @property
    def action(self) -> str:
        """What is done with it, in a word."""
        return "create" if self.current is None else "update" if self.changes else "unchanged"

    def summary(self) -> dict[str, Any]:
        """Tells it to programs."""
        return _summary("Tool", self.wanted.name, self.action, self.changes)


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """What becomes of an agent; `current` is None where there is none yet.

    `base` is what its contents are compared with: the live revision, or the newest one where changes are staged.
    """

    document: AgentDocument
    current: agent_pb2.Agent | None
    base: agent_pb2.Agent | None
    fields: list[str]
    bind: list[str]
    unbind: dict[str, str]
    # The digests of the bound tools as they were looked at.
    digests: dict[str, str]
    changes: list[Change]

    @property
    def action(self) -> str:
        """What is done with it, in a word."""
        return "create" if self.current is None else "update" if self.changes else "unchanged"

    def summary(self) -> dict[str, Any]:
        """Tells it to programs."""
        return _summary("Agent", self.document.agent.name, self.action, self.changes)


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of everything that documents describe, in the order in which it is done."""

    tools: list[ToolPlan] = field(default_factory=list)
    agents: list[AgentPlan] = field(default_factory=list)

    @property
    def parts(self) -> list[ToolPlan | AgentPlan]:
        """All of it."""
        return [*self.tools, *self.agents]

    @property
    def changes_anything(self) -> bool:
        """Whether there is anything to do."""
        return any(part.action != "unchanged" for part in self.parts)


async def make(services: Services, documents: Documents, *, stage: bool) -> Plan:
    """Compares documents with what is there. What can't be staged is a usage error where `stage` is asked for."""
    plan = Plan()
    for tool in documents.tools:
        plan.tools.append(await _tool(services, tool))
    known = {part.wanted.name: part for part in plan.tools}
    for agent in documents.agents:
        plan.agents.append(await _agent(services, agent, known, stage=stage))
    if stage:
        _check_stageable(plan)
    return plan


async def carry_out(services: Services, plan: Plan, *, stage: bool) -> None:
    """Does what was planned, tools first; what changed since it was looked at is refused by its etag or digest."""
    tools: dict[str, tool_pb2.Tool] = {}
    for part in plan.tools:
        tools[part.wanted.name] = await _apply_tool(services, part)
    for agent in plan.agents:
        if agent.action != "unchanged":
            await _apply_agent(services, agent, tools, stage=stage)


async def _tool(services: Services, document: ToolDocument) -> ToolPlan:
    current = await find_tool_named(services, document.tool.name)
    wanted = _settled(document.tool)
    before = tool_pb2.Tool() if current is None else _settled(only(current, TOOL_FIELDS))
    return ToolPlan(document.tool, current, list(_differences(before, wanted)))


async def _agent(
    services: Services, document: AgentDocument, tools: Mapping[str, ToolPlan], *, stage: bool
) -> AgentPlan:
    current = await find_agent_named(services, document.agent.name)
    base, bound = current, dict[str, agent_pb2.AgentTool]()
    if current is not None:
        if stage and current.latest_revision != current.live_revision:
            request = agent_service_pb2.GetAgentRequest(agent_id=current.agent_id, revision=current.latest_revision)
            base = (await services.agents.GetAgent(request)).agent
        listing = agent_service_pb2.ListAgentToolsRequest(agent_id=current.agent_id)
        listed = await take(services.agents.ListAgentTools, listing, "agent_tools", agent_pb2.AgentTool, _MOST_TOOLS)
        bound = {each.tool.name: each for each in listed}
    wanted = pruned(document.agent)
    before = agent_pb2.Agent() if base is None else pruned(only(base, AGENT_FIELDS))
    fields = [name for name in AGENT_FIELDS if only(before, [name]) != only(wanted, [name])]
    plan = AgentPlan(document, current, base, fields, [], {}, {}, list(_differences(before, wanted)))
    if document.tools is not None:
        await _plan_bindings(services, plan, bound, tools)
    _plan_status(plan)
    return plan


async def _plan_bindings(
    services: Services, plan: AgentPlan, bound: Mapping[str, agent_pb2.AgentTool], tools: Mapping[str, ToolPlan]
) -> None:
    wanted = plan.document.tools or {}
    for name, configuration in wanted.items():
        known = tools.get(name)
        tool = known.current if known is not None else await find_tool_named(services, name)
        if known is None and tool is None:
            raise typer.BadParameter(
                f"{plan.document.place}: there is no tool {name}, and none is described.", param_hint="--file"
            )
        before = bound.get(name)
        changes_below = known is not None and known.action != "unchanged"
        if tool is not None and not changes_below:
            plan.digests[name] = tool.digest
        if before is None:
            plan.bind.append(name)
            plan.changes.append(Change(f"tools.{name}", None, output.plain(configuration)))
        elif before.configuration != configuration:
            plan.bind.append(name)
            old, new = output.plain(before.configuration), output.plain(configuration)
            plan.changes.append(Change(f"tools.{name}", old, new))
        elif before.bound_digest != before.tool.digest or changes_below:
            # The tool is, or will be, another than when it was bound: binding it anew lets it be called.
            plan.bind.append(name)
            plan.changes.append(Change(f"tools.{name}", "bound as it was", "bound as it is"))
    for name, each in bound.items():
        if name not in wanted:
            plan.unbind[name] = each.tool.tool_id
            plan.changes.append(Change(f"tools.{name}", output.plain(each.configuration), None))


def _plan_status(plan: AgentPlan) -> None:
    wish = plan.document.status
    now = agent_pb2.AGENT_STATUS_DRAFT if plan.current is None else plan.current.status
    if wish in (0, now):
        return
    before, after = (output.enum_text(agent_pb2.AgentStatus, status) for status in (now, wish))
    moves = {
        (agent_pb2.AGENT_STATUS_DRAFT, agent_pb2.AGENT_STATUS_ACTIVE),
        (agent_pb2.AGENT_STATUS_INACTIVE, agent_pb2.AGENT_STATUS_ACTIVE),
        (agent_pb2.AGENT_STATUS_ACTIVE, agent_pb2.AGENT_STATUS_INACTIVE),
    }
    if (now, wish) not in moves:
        raise typer.BadParameter(
            f"{plan.document.place}: an agent can't go from {before} to {after}.", param_hint="--file"
        )
    plan.changes.append(Change("status", before, after))


def _check_stageable(plan: Plan) -> None:
    for tool in plan.tools:
        if tool.action != "unchanged":
            raise typer.BadParameter(f"The tool {tool.wanted.name} can't be staged.", param_hint="--stage")
    for agent in plan.agents:
        name = agent.document.agent.name
        if agent.current is None:
            raise typer.BadParameter(f"The agent {name} is new: apply it first.", param_hint="--stage")
        if any(change.field == "status" or change.field.startswith("tools.") for change in agent.changes):
            raise typer.BadParameter(
                f"The tools and the status of {name} belong to no revision: apply them without --stage.",
                param_hint="--stage",
            )


async def _apply_tool(services: Services, plan: ToolPlan) -> tool_pb2.Tool:
    if plan.current is None:
        register = tool_service_pb2.RegisterToolRequest(tool=plan.wanted, request_id=str(uuid7()))
        return (await services.tools.RegisterTool(register)).tool
    if not plan.changes:
        return plan.current
    wanted = tool_pb2.Tool(tool_id=plan.current.tool_id)
    wanted.MergeFrom(plan.wanted)
    before, after = _settled(only(plan.current, TOOL_FIELDS)), _settled(plan.wanted)
    fields = [name for name in TOOL_FIELDS if only(before, [name]) != only(after, [name])]
    update = tool_service_pb2.UpdateToolRequest(
        tool=wanted, update_mask=FieldMask(paths=fields), etag=plan.current.etag, request_id=str(uuid7())
    )
    return (await services.tools.UpdateTool(update)).tool


async def _apply_agent(services: Services, plan: AgentPlan, tools: Mapping[str, tool_pb2.Tool], *, stage: bool) -> None:
    agent_id = await _apply_contents(services, plan, stage=stage)
    for name in plan.bind:
        tool = tools.get(name) or await find_tool_named(services, name)
        bind = agent_service_pb2.BindToolRequest(
            agent_id=agent_id,
            tool_id=tool.tool_id if tool is not None else "",
            configuration=(plan.document.tools or {}).get(name, Struct()),
            expected_digest=plan.digests.get(name, tool.digest if tool is not None else ""),
            request_id=str(uuid7()),
        )
        await services.agents.BindTool(bind)
    for tool_id in plan.unbind.values():
        unbind = agent_service_pb2.UnbindToolRequest(agent_id=agent_id, tool_id=tool_id, request_id=str(uuid7()))
        await services.agents.UnbindTool(unbind)
    if any(change.field == "status" for change in plan.changes):
        if plan.document.status == agent_pb2.AGENT_STATUS_ACTIVE:
            activate = agent_service_pb2.ActivateAgentRequest(agent_id=agent_id, request_id=str(uuid7()))
            await services.agents.ActivateAgent(activate)
        else:
            deactivate = agent_service_pb2.DeactivateAgentRequest(agent_id=agent_id, request_id=str(uuid7()))
            await services.agents.DeactivateAgent(deactivate)


async def _apply_contents(services: Services, plan: AgentPlan, *, stage: bool) -> str:
    if plan.current is None or plan.base is None:
        create = agent_service_pb2.CreateAgentRequest(agent=plan.document.agent, request_id=str(uuid7()))
        return (await services.agents.CreateAgent(create)).agent.agent_id
    if plan.fields:
        wanted = agent_pb2.Agent(agent_id=plan.current.agent_id)
        wanted.MergeFrom(plan.document.agent)
        update = agent_service_pb2.UpdateAgentRequest(
            agent=wanted,
            update_mask=FieldMask(paths=plan.fields),
            etag=plan.current.etag,
            request_id=str(uuid7()),
            stage=stage,
            base_revision=plan.base.revision if stage else 0,
        )
        await services.agents.UpdateAgent(update)
    return plan.current.agent_id


def _settled(tool: tool_pb2.Tool) -> tool_pb2.Tool:
    """Gives a tool as the registry keeps it: what is left open has its default."""
    settled: tool_pb2.Tool = pruned(tool)
    settled.approval = settled.approval or tool_pb2.TOOL_APPROVAL_NEVER
    if settled.HasField("http"):
        settled.http.method = settled.http.method or tool_pb2.HTTP_METHOD_POST
    return settled


def _differences(before: Any, after: Any) -> Iterator[Change]:
    old, new = (dict(_leaves(plain(message))) for message in (before, after))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield Change(name, old.get(name), new.get(name))


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(value: Any) -> str:
    return _ABSENT if value is None else json.dumps(value, ensure_ascii=False)


def _summary(kind: str, name: str, action: str, changes: list[Change]) -> dict[str, Any]:
    told = [{"field": change.field, "old": change.old, "new": change.new} for change in changes]
    return {"kind": kind, "name": name, "action": action, "changes": told}

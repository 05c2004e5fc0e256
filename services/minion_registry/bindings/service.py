"""What is done with agents' tools."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from minion_auth import tenant
from minion_errors import InvalidArgument
from minion_postgres import Database, Idempotent, Key, Transaction, pages

from minion_registry.agents.domain import AgentName
from minion_registry.agents.store import AgentStore
from minion_registry.audit.domain import Entry
from minion_registry.audit.store import AuditStore
from minion_registry.bindings.domain import AgentTool, BindingState, ResolvedAgent, check_room, merged
from minion_registry.bindings.store import BindingStore
from minion_registry.json_values import Checkers, violations
from minion_registry.tools.domain import Tool
from minion_registry.tools.service import MovedError, name_in, told
from minion_registry.tools.store import ToolStore

_BOUND = Idempotent(AgentTool, schema="registry")
_UNBOUND = Idempotent(type(None), schema="registry")


class Bindings:
    """Keeps which tools an agent may call. Every write takes the agent's row first, and makes a new version of it."""

    def __init__(
        self,
        database: Database,
        agents: AgentStore,
        tools: ToolStore,
        store: BindingStore,
        audit: AuditStore,
        checkers: Checkers,
    ) -> None:
        self._database = database
        self._agents = agents
        self._tools = tools
        self._store = store
        self._audit = audit
        self._checkers = checkers

    async def bind(
        self, agent_id: UUID, tool_id: UUID, configuration: dict[str, Any], expected_digest: str, key: Key | None
    ) -> AgentTool:
        """Lets an agent call a tool, or pins the tool's digest anew.

        Raises NotFound (AGENT_NOT_FOUND, TOOL_NOT_FOUND), InvalidArgument (BINDING_CONFIGURATION_INVALID), Aborted
        (DIGEST_MISMATCH), FailedPrecondition (AGENT_STATUS_UNSUITABLE, TOOL_STATUS_UNSUITABLE) and ResourceExhausted
        (TOO_MANY_TOOLS).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction, seen: Tool | None, fault: InvalidArgument | None) -> AgentTool:
            agent = await self._agents.lock(transaction, tenant_id, agent_id)
            tool = await self._tools.share(transaction, tenant_id, tool_id)
            agent.check_open()
            before = await self._store.find(transaction, tenant_id, agent_id, tool)
            tool.check_bindable(bound=before is not None)
            tool.check_digest(expected_digest)
            if seen is None or seen.version != tool.version:
                raise MovedError
            if fault is not None:
                raise fault
            bound = await self._store.bind(transaction, tenant_id, agent_id, tool, configuration)
            # Afterwards, because binding again is not one more; a refusal takes the binding back.
            check_room(*await self._store.measure(transaction, tenant_id, agent_id))
            await self._agents.touch(transaction, tenant_id, agent_id)
            details = {
                **told(tool),
                "again": before is not None,
                "freed": before is not None and before.state is BindingState.DIGEST_CHANGED,
            }
            entry = Entry("binding.bind", details, agent_id=agent_id, agent_revision=agent.revision)
            await self._audit.record(transaction, tenant_id, entry)
            return bound

        while True:
            # Checking may take too long for a transaction. What is checked is what is bound, or it is checked again.
            async with self._database.transaction(tenant_id) as transaction:
                seen = await self._tools.find(transaction, tenant_id, tool_id)
            fault = None if seen is None else await asyncio.to_thread(self._fault, seen, configuration)
            try:
                async with self._database.transaction(tenant_id) as transaction:
                    return await _BOUND.once(transaction, key, partial(write, transaction, seen, fault))
            except MovedError:
                continue

    async def unbind(self, agent_id: UUID, tool_id: UUID, key: Key | None) -> None:
        """Takes a tool from an agent.

        Raises NotFound (AGENT_NOT_FOUND, BINDING_NOT_FOUND) and FailedPrecondition (AGENT_STATUS_UNSUITABLE).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> None:
            agent = await self._agents.lock(transaction, tenant_id, agent_id)
            agent.check_open()
            await self._store.unbind(transaction, tenant_id, agent_id, tool_id)
            await self._agents.touch(transaction, tenant_id, agent_id)
            details = {"tool_id": str(tool_id)}
            entry = Entry("binding.unbind", details, agent_id=agent_id, agent_revision=agent.revision)
            await self._audit.record(transaction, tenant_id, entry)

        async with self._database.transaction(tenant_id) as transaction:
            await _UNBOUND.once(transaction, key, lambda: write(transaction))

    async def page(self, agent_id: UUID, size: int, token: str) -> tuple[Sequence[AgentTool], str]:
        """Returns a page of an agent's tools by name, and the token of the next one, empty after the last.

        Raises NotFound (AGENT_NOT_FOUND) and InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        filters = {"list": "agent_tools", "agent_id": str(agent_id)}
        after = name_in(token, filters)
        async with self._database.transaction(tenant_id) as transaction:
            await self._agents.get(transaction, tenant_id, AgentName(agent_id=agent_id))
            found = await self._store.page(transaction, tenant_id, agent_id, after, size + 1)
        more = pages.encode((found[size - 1].tool.contents.name,), filters) if len(found) > size else ""
        return found[:size], more

    async def resolve(self, named: AgentName) -> ResolvedAgent:
        """Returns an agent with its tools, in one round trip. Raises NotFound (AGENT_NOT_FOUND)."""
        return await self._store.resolve(tenant(), named)

    def _fault(self, tool: Tool, configuration: dict[str, Any]) -> InvalidArgument | None:
        schema = tool.contents.configuration_schema
        if schema is None:
            return None
        try:
            together = merged(tool.contents.default_configuration, configuration)
            faults = self._checkers.of(schema).faults(together, "configuration")
        except InvalidArgument as fault:
            return fault
        if not faults:
            return None
        found = list(violations(faults, "configuration"))
        listed = "; ".join(f"{fault.field} {fault.description}" for fault in found[:3])
        return InvalidArgument(
            f"The tool's settings don't keep to its schema: {listed}.",
            reason="BINDING_CONFIGURATION_INVALID",
            violations=found,
        )

"""What is done with agents' tools."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from minion_auth import tenant
from minion_postgres import Database, Idempotent, Key, Transaction, pages

from minion_registry.agents.domain import AgentName
from minion_registry.agents.store import AgentStore
from minion_registry.bindings.domain import AgentTool, ResolvedAgent, check_room
from minion_registry.bindings.store import BindingStore
from minion_registry.tools.domain import ToolName
from minion_registry.tools.service import name_in
from minion_registry.tools.store import ToolStore

_BOUND = Idempotent(AgentTool, schema="registry")
_UNBOUND = Idempotent(type(None), schema="registry")


class Bindings:
    """Keeps which tools an agent may call. Every write takes the agent's row first, and makes a new version of it."""

    def __init__(self, database: Database, agents: AgentStore, tools: ToolStore, store: BindingStore) -> None:
        self._database = database
        self._agents = agents
        self._tools = tools
        self._store = store

    async def bind(self, agent_id: UUID, tool_id: UUID, configuration: dict[str, Any], key: Key | None) -> AgentTool:
        """Lets an agent call a tool, or pins the tool's digest anew.

        Raises NotFound (AGENT_NOT_FOUND, TOOL_NOT_FOUND), FailedPrecondition (AGENT_STATUS_UNSUITABLE) and
        ResourceExhausted (TOO_MANY_TOOLS).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> AgentTool:
            agent = await self._agents.lock(transaction, tenant_id, agent_id)
            tool = await self._tools.get(transaction, tenant_id, ToolName(tool_id=tool_id))
            agent.check_open()
            bound = await self._store.bind(transaction, tenant_id, agent_id, tool, configuration)
            # Afterwards, because binding again is not one more; a refusal takes the binding back.
            check_room(*await self._store.measure(transaction, tenant_id, agent_id))
            await self._agents.touch(transaction, tenant_id, agent_id)
            return bound

        async with self._database.transaction(tenant_id) as transaction:
            return await _BOUND.once(transaction, key, lambda: write(transaction))

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

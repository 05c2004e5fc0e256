"""What is done with tools."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from minion_auth import tenant
from minion_errors import InvalidArgument, MinionError, ResourceExhausted, Violation
from minion_postgres import Database, Idempotent, Key, Transaction, pages

from minion_registry.audit.domain import Entry
from minion_registry.audit.store import AuditStore
from minion_registry.canonical import same
from minion_registry.json_values import Checkers, Fault
from minion_registry.paging import MAXIMUM_BYTES
from minion_registry.tools import contents_check
from minion_registry.tools.domain import ChangedTool, Tool, ToolContents, ToolFilter, ToolName, ToolStatus
from minion_registry.tools.store import LATEST_VERSION, ToolStore

_KEPT = Idempotent(Tool, schema="registry")
_CHANGED = Idempotent(ChangedTool, schema="registry")
# Of more bindings that one change blocks, the audit says how many they are.
_MOST_TOLD = 1_000


class MovedError(Exception):
    """The tool isn't any more what was checked: look again."""


class Tools:
    """Keeps the tools of a tenant. Every change takes the tool's row first: writers of one tool take turns."""

    def __init__(self, database: Database, store: ToolStore, audit: AuditStore, checkers: Checkers) -> None:
        self._database = database
        self._store = store
        self._audit = audit
        self._checkers = checkers

    async def register(self, tool_id: UUID, contents: ToolContents, key: Key | None) -> Tool:
        """Registers a tool, after compiling its schemas and checking its examples.

        Raises InvalidArgument (TOOL_SCHEMA_INVALID, TOOL_EXAMPLE_INVALID) and AlreadyExists (TOOL_NAME_TAKEN).
        """
        tenant_id = tenant()
        await asyncio.to_thread(contents_check.check, self._checkers, contents, None)

        async def write(transaction: Transaction) -> Tool:
            tool = await self._store.insert(transaction, tenant_id, tool_id, contents, contents.digest())
            await self._audit.record(transaction, tenant_id, Entry("tool.register", told(tool)))
            return tool

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def get(self, named: ToolName, version: int) -> Tool:
        """Returns a tool in one of its versions; 0 is the current one. Raises NotFound (TOOL_NOT_FOUND)."""
        tenant_id = tenant()
        async with self._database.transaction(tenant_id) as transaction:
            tool = await self._store.get(transaction, tenant_id, named)
            if version in (0, tool.version):
                return tool
            return await self._store.get_version(transaction, tenant_id, tool.tool_id, version)

    async def page(self, selected: ToolFilter, size: int, token: str) -> tuple[Sequence[Tool], str]:
        """Returns a page of tools by name, and the token of the next one, empty after the last.

        Raises InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        filters = {
            "list": "tools",
            "transport": selected.transport.value if selected.transport else None,
            "status": selected.status.value if selected.status else None,
            "labels": selected.labels,
        }
        after = name_in(token, filters)
        async with self._database.transaction(tenant_id) as transaction:
            found, last = await self._store.page(transaction, tenant_id, selected, after, size)
        return found, pages.encode((last,), filters) if last else ""

    async def update(self, tool_id: UUID, changes: dict[str, Any], etag: str, key: Key | None) -> ChangedTool:
        """Replaces the fields of the contents that `changes` names, and makes a new version.

        Raises InvalidArgument (INVALID_FIELDS, TOOL_SCHEMA_INVALID, TOOL_EXAMPLE_INVALID), NotFound (TOOL_NOT_FOUND),
        Aborted (ETAG_MISMATCH), FailedPrecondition (TOOL_STATUS_UNSUITABLE), AlreadyExists (TOOL_NAME_TAKEN) and
        ResourceExhausted (TOO_MANY_TOOLS).
        """
        tenant_id = tenant()
        while True:
            # Checking takes too long for a transaction. What is checked is what is written, or it is checked again.
            async with self._database.transaction(tenant_id) as transaction:
                seen = await self._store.find(transaction, tenant_id, tool_id)
            fault = None if seen is None else await asyncio.to_thread(self._fault, seen.contents, changes)
            try:
                async with self._database.transaction(tenant_id) as transaction:
                    write = partial(self._update, transaction, tenant_id, tool_id, seen, fault, changes, etag)
                    return await _CHANGED.once(transaction, key, write)
            except MovedError:
                continue

    async def _update(
        self,
        transaction: Transaction,
        tenant_id: UUID,
        tool_id: UUID,
        seen: Tool | None,
        fault: MinionError | None,
        changes: dict[str, Any],
        etag: str,
    ) -> ChangedTool:
        before = await self._store.lock(transaction, tenant_id, tool_id)
        before.check_etag(etag)
        before.check_open()
        if seen is None or seen.version != before.version:
            raise MovedError
        if fault is not None:
            raise fault
        contents = replace(before.contents, **changes)
        # A tool of an earlier release, whose digest covered less, keeps it until something that it covers changes.
        digest = before.digest if contents.pins_the_same_as(before.contents) else contents.digest()
        after, grew = await self._store.update(transaction, tenant_id, tool_id, contents, digest)
        if grew:
            await self._check_room(transaction, tenant_id, tool_id)
        blocked: Sequence[UUID] = ()
        freed: Sequence[UUID] = ()
        count = freed_count = 0
        if digest != before.digest:
            blocked, count = await self._store.bound_agents(transaction, tenant_id, before, _MOST_TOLD)
            # Of agents that were given it as it is again.
            freed, freed_count = await self._store.bound_agents(transaction, tenant_id, after, _MOST_TOLD)
        details = {
            **told(after),
            "old_version": before.version,
            "old_digest": before.digest,
            "fields": sorted(
                name for name, value in changes.items() if not same(getattr(before.contents, name), value)
            ),
            "blocked_binding_count": count,
            "freed_binding_count": freed_count,
        }
        blocks = _blocks(after, blocked, "DIGEST_CHANGED")
        frees = [Entry("binding.free", told(after), agent_id=agent_id) for agent_id in freed]
        await self._audit.record(transaction, tenant_id, Entry("tool.update", details), *blocks, *frees)
        return ChangedTool(after, count)

    async def move(self, tool_id: UUID, to: ToolStatus, note: str, etag: str, key: Key | None) -> ChangedTool:
        """Moves a tool along its life.

        Raises NotFound (TOOL_NOT_FOUND), Aborted (ETAG_MISMATCH) and FailedPrecondition (TOOL_TRANSITION_ILLEGAL).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> ChangedTool:
            before = await self._store.lock(transaction, tenant_id, tool_id)
            before.check_etag(etag)
            before.check_move(to)
            after = await self._store.set_status(transaction, tenant_id, tool_id, to, note)
            blocked: Sequence[UUID] = ()
            count = 0
            if to is ToolStatus.RETIRED:
                blocked, count = await self._store.bound_agents(transaction, tenant_id, before, _MOST_TOLD)
            details = {**told(after), "old_status": before.status.name, "blocked_binding_count": count}
            await self._audit.record(
                transaction, tenant_id, Entry(_MOVES[to], details), *_blocks(after, blocked, "TOOL_RETIRED")
            )
            return ChangedTool(after, count)

        async with self._database.transaction(tenant_id) as transaction:
            return await _CHANGED.once(transaction, key, lambda: write(transaction))

    async def versions(self, tool_id: UUID, size: int, token: str) -> tuple[Sequence[Tool], str]:
        """Returns a page of a tool's versions, newest first, and the token of the next one.

        Raises NotFound (TOOL_NOT_FOUND) and InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        filters = {"list": "tool_versions", "tool_id": str(tool_id)}
        before = pages.decode(token, filters, (int,))[0] if token else LATEST_VERSION
        if not isinstance(before, int):
            raise pages.refused("PAGE_TOKEN_INVALID", "page_token")
        async with self._database.transaction(tenant_id) as transaction:
            await self._store.get(transaction, tenant_id, ToolName(tool_id=tool_id))
            found, last = await self._store.versions(transaction, tenant_id, tool_id, before, size)
        return found, pages.encode((last,), filters) if last else ""

    async def validate(self, named: ToolName, version: int, arguments: dict[str, Any]) -> Sequence[Fault]:
        """Returns what is wrong with arguments for a tool.

        Raises NotFound (TOOL_NOT_FOUND) and InvalidArgument (INVALID_FIELDS, TOOL_SCHEMA_INVALID).
        """
        tool = await self.get(named, version)
        return await asyncio.to_thread(
            lambda: self._checkers.of(tool.contents.input_schema).faults(arguments, "arguments")
        )

    def _fault(self, before: ToolContents, changes: dict[str, Any]) -> MinionError | None:
        after = replace(before, **changes)
        faults = list(after.target_faults())
        if faults:
            return _malformed(faults)
        try:
            contents_check.check(self._checkers, after, before)
        except InvalidArgument as fault:
            return fault
        return None

    async def _check_room(self, transaction: Transaction, tenant_id: UUID, tool_id: UUID) -> None:
        # Two tools of one agent that grow at the same moment don't see each other's new size, and the agent may then
        # have more by what one of them grew. Its row isn't locked for that: bindings take agents first and tools then,
        # and the gateway takes far more in one message than is checked here.
        crowded = await self._store.crowded_agent(transaction, tenant_id, tool_id, MAXIMUM_BYTES)
        if crowded is not None:
            raise ResourceExhausted(
                f"An agent that has the tool would have more than {MAXIMUM_BYTES} bytes of tools.",
                reason="TOO_MANY_TOOLS",
                metadata={"limit_bytes": str(MAXIMUM_BYTES), "agent_id": str(crowded)},
            )


_MOVES: Mapping[ToolStatus, str] = {ToolStatus.DEPRECATED: "tool.deprecate", ToolStatus.RETIRED: "tool.retire"}


def name_in(token: str, filters: Mapping[str, object]) -> str:
    """Reads the name that a page by name begins after; the empty token begins before every name.

    Raises InvalidArgument (PAGE_TOKEN_INVALID).
    """
    name = pages.decode(token, filters, (str,))[0] if token else ""
    if not isinstance(name, str):
        raise pages.refused("PAGE_TOKEN_INVALID", "page_token")
    return name


def told(tool: Tool) -> dict[str, Any]:
    """Says which tool, for the audit."""
    return {
        "tool_id": str(tool.tool_id),
        "name": tool.contents.name,
        "version": tool.version,
        "digest": tool.digest,
    }


def _blocks(tool: Tool, agents: Sequence[UUID], state: str) -> list[Entry]:
    details = {**told(tool), "state": state}
    return [Entry("binding.block", details, agent_id=agent_id) for agent_id in agents]


def _malformed(faults: Sequence[Violation]) -> InvalidArgument:
    listed = "; ".join(f"{fault.field} {fault.description}" for fault in faults)
    return InvalidArgument(f"The request is malformed: {listed}.", violations=faults)

"""Rows of tools and their versions."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
from minion_errors import AlreadyExists, MinionError, NotFound
from minion_postgres import Record, Transaction, queries
from pydantic import TypeAdapter

from minion_registry.paging import fitting
from minion_registry.tools.domain import (
    CredentialReference,
    GrpcTarget,
    HttpTarget,
    McpTarget,
    Tool,
    ToolApproval,
    ToolContents,
    ToolEffect,
    ToolExample,
    ToolFilter,
    ToolName,
    ToolStatus,
    ToolTransport,
)

_QUERIES = queries.load(__package__)
_EXAMPLES = TypeAdapter(tuple[ToolExample, ...])
_CREDENTIALS = TypeAdapter(tuple[CredentialReference, ...])
# What the column `target` may hold, by the contract's field.
_GRPC = TypeAdapter(GrpcTarget | None)
_HTTP = TypeAdapter(HttpTarget | None)
_MCP = TypeAdapter(McpTarget | None)
_AGENT = TypeAdapter(UUID | None)

LATEST_VERSION: Final = 2**63 - 1


class ToolStore:
    """Reads and writes tools. Each change makes its own line in the feed, and a version where contents change."""

    async def insert(
        self, transaction: Transaction, tenant_id: UUID, tool_id: UUID, contents: ToolContents, digest: str
    ) -> Tool:
        """Raises AlreadyExists (TOOL_NAME_TAKEN), and NotFound (TENANT_NOT_FOUND) when there is no such tenant."""
        try:
            row = await transaction.fetch_one(_QUERIES.insert_tool, tenant_id, tool_id, *_columns(contents), digest)
        except asyncpg.UniqueViolationError as error:
            raise _taken(contents) from error
        except asyncpg.ForeignKeyViolationError as error:
            raise NotFound(
                "There is no such tenant.", reason="TENANT_NOT_FOUND", metadata={"tenant_id": str(tenant_id)}
            ) from error
        assert row is not None
        return tool_from_row(row)

    async def update(
        self, transaction: Transaction, tenant_id: UUID, tool_id: UUID, contents: ToolContents, digest: str
    ) -> tuple[Tool, bool]:
        """Replaces the contents of a locked tool; tells also whether it takes more on the wire now where it is bound.

        Raises AlreadyExists (TOOL_NAME_TAKEN).
        """
        before = await transaction.fetch_value(_QUERIES.measure_tool, tenant_id, tool_id)
        try:
            row = await transaction.fetch_one(_QUERIES.update_tool, tenant_id, tool_id, *_columns(contents), digest)
        except asyncpg.UniqueViolationError as error:
            raise _taken(contents) from error
        assert row is not None
        return tool_from_row(row), row["wire_bytes"] > before

    async def set_status(
        self, transaction: Transaction, tenant_id: UUID, tool_id: UUID, status: ToolStatus, note: str
    ) -> Tool:
        """Moves a locked tool to another status."""
        row = await transaction.fetch_one(_QUERIES.set_tool_status, tenant_id, tool_id, status.value, note)
        assert row is not None
        return tool_from_row(row)

    async def get(self, transaction: Transaction, tenant_id: UUID, named: ToolName) -> Tool:
        """Raises NotFound (TOOL_NOT_FOUND)."""
        if named.tool_id is not None:
            row = await transaction.fetch_one(_QUERIES.get_tool, tenant_id, named.tool_id)
        else:
            row = await transaction.fetch_one(_QUERIES.get_tool_by_name, tenant_id, named.name)
        return _found(row, named)

    async def find(self, transaction: Transaction, tenant_id: UUID, tool_id: UUID) -> Tool | None:
        """Reads a tool, if there is one."""
        row = await transaction.fetch_one(_QUERIES.get_tool, tenant_id, tool_id)
        return None if row is None else tool_from_row(row)

    async def lock(self, transaction: Transaction, tenant_id: UUID, tool_id: UUID) -> Tool:
        """Reads a tool that nobody else changes or binds until the transaction ends. Raises NotFound."""
        row = await transaction.fetch_one(_QUERIES.lock_tool, tenant_id, tool_id)
        return _found(row, ToolName(tool_id=tool_id))

    async def share(self, transaction: Transaction, tenant_id: UUID, tool_id: UUID) -> Tool:
        """Reads a tool that nobody changes until the transaction ends. Raises NotFound (TOOL_NOT_FOUND)."""
        row = await transaction.fetch_one(_QUERIES.share_tool, tenant_id, tool_id)
        return _found(row, ToolName(tool_id=tool_id))

    async def get_version(self, transaction: Transaction, tenant_id: UUID, tool_id: UUID, version: int) -> Tool:
        """Raises NotFound (TOOL_NOT_FOUND)."""
        row = await transaction.fetch_one(_QUERIES.get_tool_versions, tenant_id, tool_id, [version])
        if row is None:
            raise NotFound(
                "The tool has no such version.",
                reason="TOOL_NOT_FOUND",
                metadata={"tool_id": str(tool_id), "version": str(version)},
            )
        return tool_from_row(row)

    async def versions(
        self, transaction: Transaction, tenant_id: UUID, tool_id: UUID, before: int, count: int
    ) -> tuple[Sequence[Tool], int | None]:
        """Returns a page of at most `count` versions before a number, newest first.

        Its second part is the last one's number where others follow.
        """
        listed = await transaction.fetch(_QUERIES.list_tool_versions, tenant_id, tool_id, before, count + 1)
        kept = fitting([row["wire_bytes"] for row in listed], count)
        numbers = [row["version"] for row in listed[:kept]]
        rows = await transaction.fetch(_QUERIES.get_tool_versions, tenant_id, tool_id, numbers)
        return [tool_from_row(row) for row in rows], numbers[-1] if len(listed) > kept else None

    async def page(
        self, transaction: Transaction, tenant_id: UUID, selected: ToolFilter, after: str, count: int
    ) -> tuple[Sequence[Tool], str | None]:
        """Returns a page of at most `count` tools whose names come after `after`, by name.

        Its second part is the last one's name where others follow.
        """
        listed = await self._listed(transaction, (tenant_id, after, count + 1), selected)
        kept = fitting([row["wire_bytes"] for row in listed], count)
        rows = await transaction.fetch(_QUERIES.get_tools, tenant_id, [row["tool_id"] for row in listed[:kept]])
        return [tool_from_row(row) for row in rows], listed[kept - 1]["name"] if len(listed) > kept else None

    async def bound_agents(
        self, transaction: Transaction, tenant_id: UUID, tool: Tool, most: int
    ) -> tuple[Sequence[UUID], int]:
        """Returns at most `most` of the agents to which a locked tool is bound as it is, and how many there are."""
        rows = await transaction.fetch(_QUERIES.list_bound_agents, tenant_id, tool.tool_id, tool.digest, most)
        return [row["agent_id"] for row in rows], rows[0]["agents"] if rows else 0

    async def crowded_agent(
        self, transaction: Transaction, tenant_id: UUID, tool_id: UUID, most_bytes: int
    ) -> UUID | None:
        """Returns an agent with the tool whose tools take more than `most_bytes` on the wire, if there is one."""
        row = await transaction.fetch_one(_QUERIES.find_crowded_agent, tenant_id, tool_id, most_bytes)
        return None if row is None else row["agent_id"]

    async def _listed(
        self, transaction: Transaction, where: tuple[object, ...], selected: ToolFilter
    ) -> Sequence[Record]:
        """Lists ids. The filter likely to match fewest decides which index is walked; the others look at its rows."""
        status = selected.status.value if selected.status else None
        transport = selected.transport.value if selected.transport else None
        if selected.labels:
            key, value = min(selected.labels.items())
            others = {name: wanted for name, wanted in selected.labels.items() if name != key} or None
            return await transaction.fetch(_QUERIES.list_tools_by_label, *where, status, transport, key, value, others)
        if status is not None:
            return await transaction.fetch(_QUERIES.list_tools_by_status, *where, status, transport)
        if transport is not None:
            return await transaction.fetch(_QUERIES.list_tools_by_transport, *where, transport)
        return await transaction.fetch(_QUERIES.list_tools, *where)


def tool_from_row(row: Record | Mapping[str, Any]) -> Tool:
    """Reads a tool from a row that has its columns."""
    target = row["target"]
    return Tool(
        tool_id=row["tool_id"],
        contents=ToolContents(
            name=row["name"],
            description=row["description"],
            input_schema=row["input_schema"],
            transport=ToolTransport(row["transport"]),
            builtin=row["builtin"],
            effect=ToolEffect(row["effect"]),
            time_limit=row["time_limit"],
            cost_per_call_nanos=row["cost_per_call_nanos"],
            labels=row["labels"],
            output_schema=row["output_schema"],
            examples=_EXAMPLES.validate_python(row["examples"]),
            documentation=row["documentation"],
            grpc=_GRPC.validate_python(target.get("grpc")),
            http=_HTTP.validate_python(target.get("http")),
            mcp=_MCP.validate_python(target.get("mcp")),
            target_agent_id=_AGENT.validate_python(target.get("agent_id")),
            approval=ToolApproval(row["approval"]),
            configuration_schema=row["configuration_schema"],
            default_configuration=row["default_configuration"],
            credentials=_CREDENTIALS.validate_python(row["credentials"]),
        ),
        version=row["version"],
        digest=row["digest"],
        create_time=row["create_time"],
        update_time=row["updated_at"],
        status=ToolStatus(row["status"]),
        status_note=row["status_note"],
        edition=row["edition"],
    )


def _found(row: Record | None, named: ToolName) -> Tool:
    if row is None:
        metadata = {"tool_id": str(named.tool_id)} if named.tool_id is not None else {"name": named.name or ""}
        raise NotFound("There is no such tool.", reason="TOOL_NOT_FOUND", metadata=metadata)
    return tool_from_row(row)


def _columns(contents: ToolContents) -> tuple[object, ...]:
    target = {
        "grpc": _GRPC.dump_python(contents.grpc, mode="json"),
        "http": _HTTP.dump_python(contents.http, mode="json"),
        "mcp": _MCP.dump_python(contents.mcp, mode="json"),
        "agent_id": _AGENT.dump_python(contents.target_agent_id, mode="json"),
    }
    return (
        contents.name,
        contents.description,
        contents.input_schema,
        contents.transport.value,
        contents.builtin,
        contents.effect.value,
        contents.time_limit,
        contents.cost_per_call_nanos,
        contents.labels,
        contents.output_schema,
        _EXAMPLES.dump_python(contents.examples, mode="json"),
        contents.documentation,
        {name: value for name, value in target.items() if value is not None},
        contents.approval.value,
        contents.configuration_schema,
        contents.default_configuration,
        _CREDENTIALS.dump_python(contents.credentials, mode="json"),
    )


def _taken(contents: ToolContents) -> MinionError:
    return AlreadyExists(
        "Another tool has this name or id.", reason="TOOL_NAME_TAKEN", metadata={"name": contents.name}
    )

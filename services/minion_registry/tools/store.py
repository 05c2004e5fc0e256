"""Rows of tools."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
from minion_errors import AlreadyExists, NotFound
from minion_postgres import Record, Transaction, queries

from minion_registry.paging import fitting
from minion_registry.tools.domain import Tool, ToolContents, ToolEffect, ToolName, ToolTransport

_QUERIES = queries.load(__package__)


class ToolStore:
    """Reads and writes tools."""

    async def insert(
        self, transaction: Transaction, tenant_id: UUID, tool_id: UUID, contents: ToolContents, digest: str
    ) -> Tool:
        """Raises AlreadyExists (TOOL_NAME_TAKEN), and NotFound (TENANT_NOT_FOUND) when there is no such tenant."""
        try:
            row = await transaction.fetch_one(
                _QUERIES.insert_tool,
                tenant_id,
                tool_id,
                contents.name,
                contents.description,
                contents.input_schema,
                contents.transport.value,
                contents.builtin,
                contents.effect.value,
                contents.time_limit,
                contents.cost_per_call_nanos,
                contents.labels,
                digest,
            )
        except asyncpg.UniqueViolationError as error:
            raise AlreadyExists(
                "Another tool has this name or id.", reason="TOOL_NAME_TAKEN", metadata={"name": contents.name}
            ) from error
        except asyncpg.ForeignKeyViolationError as error:
            raise NotFound(
                "There is no such tenant.", reason="TENANT_NOT_FOUND", metadata={"tenant_id": str(tenant_id)}
            ) from error
        assert row is not None
        await transaction.execute(_QUERIES.insert_tool_version, tenant_id, tool_id)
        return tool_from_row(row)

    async def get(self, transaction: Transaction, tenant_id: UUID, named: ToolName) -> Tool:
        """Raises NotFound (TOOL_NOT_FOUND)."""
        if named.tool_id is not None:
            row = await transaction.fetch_one(_QUERIES.get_tool, tenant_id, named.tool_id)
        else:
            row = await transaction.fetch_one(_QUERIES.get_tool_by_name, tenant_id, named.name)
        if row is None:
            metadata = {"tool_id": str(named.tool_id)} if named.tool_id is not None else {"name": named.name or ""}
            raise NotFound("There is no such tool.", reason="TOOL_NOT_FOUND", metadata=metadata)
        return tool_from_row(row)

    async def page(
        self, transaction: Transaction, tenant_id: UUID, transport: ToolTransport | None, after: str, count: int
    ) -> tuple[Sequence[Tool], str | None]:
        """Returns a page of at most `count` tools whose names come after `after`, by name.

        Its second part is the last one's name where others follow.
        """
        where = (tenant_id, after, count + 1)
        if transport is None:
            listed = await transaction.fetch(_QUERIES.list_tools, *where)
        else:
            listed = await transaction.fetch(_QUERIES.list_tools_by_transport, *where, transport.value)
        kept = fitting([row["wire_bytes"] for row in listed], count)
        rows = await transaction.fetch(_QUERIES.get_tools, tenant_id, [row["tool_id"] for row in listed[:kept]])
        return [tool_from_row(row) for row in rows], listed[kept - 1]["name"] if len(listed) > kept else None


def tool_from_row(row: Record | Mapping[str, Any]) -> Tool:
    """Reads a tool from a row that has its columns."""
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
        ),
        version=row["version"],
        digest=row["digest"],
        create_time=row["create_time"],
        update_time=row["updated_at"],
    )

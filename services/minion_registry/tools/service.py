"""What is done with tools."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from minion_auth import tenant
from minion_postgres import Database, Idempotent, Key, pages

from minion_registry import json_schema
from minion_registry.tools import domain
from minion_registry.tools.domain import Tool, ToolContents, ToolName, ToolTransport
from minion_registry.tools.store import ToolStore

_KEPT = Idempotent(Tool, schema="registry")


class Tools:
    """Keeps the tools of a tenant."""

    def __init__(self, database: Database, store: ToolStore) -> None:
        self._database = database
        self._store = store

    async def register(self, tool_id: UUID, contents: ToolContents, key: Key | None) -> Tool:
        """Registers a tool, after compiling its schema.

        Raises InvalidArgument (TOOL_SCHEMA_INVALID) and AlreadyExists (TOOL_NAME_TAKEN).
        """
        tenant_id = tenant()
        # Up to 0.1 s for 64 KiB of faults.
        await asyncio.to_thread(json_schema.check, contents.input_schema, "tool.input_schema")
        digest = domain.digest(contents.name, contents.description, contents.input_schema)
        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(
                transaction, key, lambda: self._store.insert(transaction, tenant_id, tool_id, contents, digest)
            )

    async def get(self, named: ToolName) -> Tool:
        """Returns a tool. Raises NotFound (TOOL_NOT_FOUND)."""
        tenant_id = tenant()
        async with self._database.transaction(tenant_id) as transaction:
            return await self._store.get(transaction, tenant_id, named)

    async def page(self, transport: ToolTransport | None, size: int, token: str) -> tuple[Sequence[Tool], str]:
        """Returns a page of tools by name, and the token of the next one, empty after the last.

        Raises InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        filters = {"list": "tools", "transport": transport.value if transport else None}
        after = name_in(token, filters)
        async with self._database.transaction(tenant_id) as transaction:
            found, last = await self._store.page(transaction, tenant_id, transport, after, size)
        return found, pages.encode((last,), filters) if last else ""


def name_in(token: str, filters: Mapping[str, object]) -> str:
    """Reads the name that a page by name begins after; the empty token begins before every name.

    Raises InvalidArgument (PAGE_TOKEN_INVALID).
    """
    name = pages.decode(token, filters, (str,))[0] if token else ""
    if not isinstance(name, str):
        raise pages.refused("PAGE_TOKEN_INVALID", "page_token")
    return name

"""Rows of the audit that wait to be sent."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from minion_auth import caller
from minion_postgres import Transaction, queries
from uuid_utils.compat import uuid7

from minion_registry.audit.domain import Entry

_QUERIES = queries.load(__package__)


class AuditStore:
    """Writes down what was changed, in the transaction that changes it: a change that stands is told, no other."""

    async def record(self, transaction: Transaction, tenant_id: UUID, *entries: Entry) -> None:
        """Records changes made by the caller in hand."""
        await transaction.execute(_QUERIES.record_audit, tenant_id, _rows(entries))


def _rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        {
            "activity_id": (activity_id := UUID(int=uuid7().int)),
            "principal": caller().origin,
            "payload": {
                "activity_id": activity_id,
                "kind": "ADMINISTRATION",
                "status": "SUCCEEDED",
                "name": entry.name,
                "start_time": now,
                "nanoseconds": 0,
                # As text: ids from the driver's rows are of its own type, which JSON doesn't know.
                "agent_id": None if entry.agent_id is None else str(entry.agent_id),
                "agent_revision": entry.agent_revision,
                "input": dict(entry.details),
            },
        }
        for entry in entries
    ]

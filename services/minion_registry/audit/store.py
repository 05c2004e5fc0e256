"""Rows of the audit that wait to be sent."""

from datetime import UTC, datetime
from uuid import UUID

from minion_audit import Activity, ActivityKind, ActivityStatus, clipped
from minion_auth.identity import current
from minion_postgres import Transaction, queries
from opentelemetry.trace import get_current_span
from uuid_utils.compat import uuid7

from minion_registry.audit.domain import Entry

_QUERIES = queries.load(__package__)


class AuditStore:
    """Writes down what was changed, in the transaction that changes it: a change that stands is told, no other."""

    async def record(self, transaction: Transaction, tenant_id: UUID, *entries: Entry) -> None:
        """Records changes made by the caller in hand, or by the registry itself where there is none."""
        identity = current()
        principal = identity.origin if identity is not None else "service:registry"
        rows = [_activity(entry).row(principal) for entry in entries]
        await transaction.execute(_QUERIES.record_audit, tenant_id, rows)


def _activity(entry: Entry) -> Activity:
    span = get_current_span().get_span_context()
    return Activity(
        activity_id=UUID(int=uuid7().int),
        kind=ActivityKind.ADMINISTRATION,
        status=ActivityStatus.SUCCEEDED,
        name=entry.name,
        start_time=datetime.now(UTC),
        nanoseconds=0,
        # The driver's own kind of UUID is none that JSON knows.
        agent_id=None if entry.agent_id is None else UUID(int=entry.agent_id.int),
        agent_revision=entry.agent_revision,
        input=clipped(dict(entry.details)),
        trace_id=f"{span.trace_id:032x}" if span.is_valid else "",
        span_id=f"{span.span_id:016x}" if span.is_valid and span.trace_flags.sampled else "",
    )

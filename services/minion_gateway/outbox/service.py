"""Audit rows outside of runs: what clients ask the models for."""

from datetime import UTC, datetime
from uuid import UUID

from minion_audit import Activity, ActivityKind, ActivityStatus
from minion_auth import caller, tenant
from opentelemetry.trace import get_current_span
from uuid_utils.compat import uuid7

from minion_gateway.inference.domain import InferenceCall
from minion_gateway.outbox.store import InferenceOutboxStore


class Outbox:
    """Writes rows down for the caller in hand; the relay sends them."""

    def __init__(self, store: InferenceOutboxStore) -> None:
        self._store = store

    async def record(self, call: InferenceCall) -> None:
        """Records a call of the inference service."""
        span = get_current_span().get_span_context()
        status = ActivityStatus.SUCCEEDED
        if call.reason:
            status = ActivityStatus.CANCELED if call.reason == "CANCELED" else ActivityStatus.FAILED
        activity = Activity(
            activity_id=UUID(int=uuid7().int),
            kind=ActivityKind.INFERENCE,
            status=status,
            name=call.model,
            start_time=datetime.now(UTC),
            nanoseconds=0,
            error_reason=call.reason,
            input_tokens=call.usage.input_tokens,
            output_tokens=call.usage.output_tokens,
            cached_tokens=call.usage.cached_tokens,
            reasoning_tokens=call.usage.reasoning_tokens,
            cost_nanos=call.cost_nanos,
            trace_id=f"{span.trace_id:032x}" if span.is_valid else "",
            span_id=f"{span.span_id:016x}" if span.is_valid and span.trace_flags.sampled else "",
            metadata={"operation": call.operation.value},
        )
        await self._store.record(tenant(), caller().origin, activity)

"""What callers do with activities: record, read, sum up."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from minion_auth import CallerKind, caller, tenant
from minion_auth.authenticator import DEVELOPMENT_IDENTITY
from minion_errors import PermissionDenied
from minion_postgres import pages
from minion_telemetry import masking
from prometheus_client import CollectorRegistry, Counter

from minion_activity.activities.domain import (
    Activity,
    ActivityFilter,
    ActivityKind,
    ActivityPage,
    AgentStats,
    Recorded,
    RecordedActivity,
    StatsQuery,
    not_found,
)
from minion_activity.activities.store import ActivityStore, Place


class Activities:
    """The audit of the caller's tenant."""

    def __init__(self, store: ActivityStore, registry: CollectorRegistry) -> None:
        self._store = store
        self._recorded = Counter(
            "activities_recorded",
            "Activities that were stored; what was there already is not counted.",
            registry=registry,
        )

    async def record(self, activities: Sequence[Activity]) -> Recorded:
        """Records activities, all or none, as done by whoever the caller answers for; personal data is masked.

        A row whose id is there already stays as it was.

        Raises:
            PermissionDenied: a row tells of administration, and the registry isn't the caller (`PERMISSION_MISSING`).
        """
        if any(activity.kind is ActivityKind.ADMINISTRATION for activity in activities):
            _only_the_registry()
        tenant_id, principal = tenant(), caller().origin
        # In a thread: masking takes up to 1 µs a character, and other calls wait for the loop.
        masked = await asyncio.to_thread(_masked, activities)
        recorded = await self._store.record(tenant_id, principal, masked)
        self._recorded.inc(recorded.recorded_count)
        return recorded

    async def get(self, activity_id: UUID) -> RecordedActivity:
        """Gives an activity.

        Raises:
            NotFound: there is no such activity (`ACTIVITY_NOT_FOUND`).
        """
        recorded = await self._store.get(tenant(), activity_id)
        if recorded is None:
            raise not_found(activity_id)
        return recorded

    async def list(self, wanted: ActivityFilter, *, page_size: int, page_token: str) -> ActivityPage:
        """Lists activities, newest first.

        Raises:
            InvalidArgument: the token is not of this list (`PAGE_TOKEN_INVALID`).
        """
        filters = {
            "agent_id": wanted.agent_id,
            "session_id": wanted.session_id,
            "run_id": wanted.run_id,
            "kind": wanted.kind,
            "status": wanted.status,
            "start_time": wanted.start_time,
            "end_time": wanted.end_time,
        }
        before = _place(page_token, filters) if page_token else None
        found, more = await self._store.list(tenant(), wanted, before=before, page_size=page_size)
        last = found[-1].activity if more else None
        token = pages.encode((last.start_time, last.activity_id), filters) if last else ""
        return ActivityPage(found, token)

    async def agent_stats(self, query: StatsQuery) -> AgentStats:
        """Sums up what an agent did; one that did nothing has zeros."""
        return await self._store.agent_stats(tenant(), query)


def _place(page_token: str, filters: Mapping[str, object]) -> Place:
    time, activity_id = pages.decode(page_token, filters, (datetime, UUID))
    if not isinstance(time, datetime) or not isinstance(activity_id, UUID):
        raise pages.refused("PAGE_TOKEN_INVALID", "page_token")
    return time, activity_id


def _masked(activities: Sequence[Activity]) -> list[Activity]:
    return [
        replace(
            activity,
            input=masking.mask_json(activity.input),
            output=masking.mask_json(activity.output),
            error_message=masking.mask_whole(activity.error_message),
        )
        for activity in activities
    ]


def _only_the_registry() -> None:
    identity = caller()
    if identity.kind is CallerKind.SERVICE and identity.service == "registry":
        return
    # Where authentication is switched off, everybody may do everything: a registry without a service key sends so.
    if identity != DEVELOPMENT_IDENTITY:
        raise PermissionDenied(
            "The registry alone tells of administration.",
            reason="PERMISSION_MISSING",
            metadata={"permission": "activities.write_administration", "principal": identity.principal},
        )

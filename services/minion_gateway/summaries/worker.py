"""Keeps jobs going: looks for sessions whose summary is due, renews what is worked on here, lets go at the end."""

import asyncio
import contextvars
import random
from datetime import timedelta
from uuid import UUID

import structlog
from minion_auth import CallerKind, Identity, acting_as
from minion_errors import MinionError
from minion_telemetry import Telemetry, attributes, bind_fields
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TraceFlags, use_span
from prometheus_client import Counter

from minion_gateway.summaries.domain import Job
from minion_gateway.summaries.service import AWAY, LostError, Outcome, Summarizer
from minion_gateway.summaries.store import SummaryStore

_AT_ONCE = 4
_FIRST_PAUSE = timedelta(seconds=0.5)
_LONGEST_PAUSE = timedelta(minutes=1)
# About a quarter of an hour: then the session's next turn asks anew.
_MAXIMUM_DEFERRALS = 20
_log = structlog.get_logger()


class SummaryWorker:
    """The jobs of this replica. `lease_seconds` is how long one stays ours when we die."""

    def __init__(
        self,
        store: SummaryStore,
        summarizer: Summarizer,
        telemetry: Telemetry,
        *,
        lease_seconds: float,
        poll_seconds: float,
    ) -> None:
        self._store = store
        self._summarizer = summarizer
        self._tracer = telemetry.tracer
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        # By tenant and session: clients may propose the ids of sessions, and two tenants the same.
        self._held: dict[tuple[UUID, UUID], tuple[Job, asyncio.Task[None]]] = {}
        self._wakened = asyncio.Event()
        self._draining = False
        self._count = Counter(
            "session_summaries",
            "Summary jobs that ended: made, skipped, failed.",
            ("outcome",),
            registry=telemetry.registry,
        )
        # All there are, so that rates are 0 and not absent.
        for outcome in Outcome:
            self._count.labels(outcome.value)

    def wake(self) -> None:
        """Looks at once: a run that ended here has asked for a summary."""
        self._wakened.set()

    async def run(self) -> None:
        """Looks for jobs, for ever. Other replicas' are found within the poll's time."""
        while True:
            self._wakened.clear()
            room = 0 if self._draining else _AT_ONCE - len(self._held)
            leased: list[tuple[UUID, UUID]] = []
            if room > 0:
                try:
                    leased = await self._store.lease(room)
                    for tenant_id, session_id in leased:
                        await self._take(tenant_id, session_id)
                except MinionError as fault:
                    _log.warning("no summaries could be leased", reason=fault.reason, error=fault.message)
            # Replicas in step would leave all the work to the one that is a moment ahead.
            pause = self._poll_seconds * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            try:
                async with asyncio.timeout(pause):
                    await self._wakened.wait()
            except TimeoutError:
                pass

    async def renew(self) -> None:
        """Renews leases at thirds of their time, for ever; one statement for all."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            held = list(self._held.values())
            if not held:
                continue
            try:
                ours = await self._store.renew([job for job, _ in held])
            except MinionError as fault:
                _log.warning("summaries could not be renewed", reason=fault.reason, error=fault.message)
                continue
            for job, task in held:
                if (job.tenant_id, job.session_id) not in ours:
                    task.cancel()

    async def drain(self) -> None:
        """Stops, and gives every job back, so that other replicas take over at once."""
        self._draining = True
        tasks = [task for _, task in self._held.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.release()

    async def _take(self, tenant_id: UUID, session_id: UUID) -> None:
        stale = self._held.get((tenant_id, session_id))
        if stale is not None:
            # Our own lease ran out under us (the process was paused, or starved): what we began is fenced by now.
            stale[1].cancel()
            await asyncio.wait([stale[1]])
        job = await self._store.load(tenant_id, session_id)
        if job is None:
            return
        # An empty context: nothing of whoever woke us.
        task = asyncio.get_running_loop().create_task(self._work(job), context=contextvars.Context())
        self._held[tenant_id, session_id] = (job, task)

    async def _work(self, job: Job) -> None:
        """One job's task. What fails inside ends the job, never the worker."""
        bind_fields(
            service="gateway", tenant_id=str(job.tenant_id), session_id=str(job.session_id), run_id=str(job.run_id)
        )
        identity = Identity(
            kind=CallerKind.SERVICE,
            tenant_id=job.tenant_id,
            principal="service:gateway",
            on_behalf_of=job.principal,
            service="gateway",
        )
        span = self._span(job)
        try:
            with acting_as(identity), use_span(span, record_exception=False, set_status_on_exception=False):
                await self._finish(job)
        finally:
            span.end()
            key = (job.tenant_id, job.session_id)
            held = self._held.get(key)
            if held is not None and held[0] is job:
                del self._held[key]
            self.wake()

    async def _finish(self, job: Job) -> None:
        try:
            outcome = await self._summarizer.work(job)
            self._count.labels(outcome.value).inc()
        except LostError:
            _log.info("another replica makes the summary", epoch=job.epoch)
        except AWAY as fault:
            await self._put_off(job, fault)
        except Exception:  # noqa: BLE001 - the one handler around a job: whatever it stumbles over, it must end
            _log.exception("a summary stumbled", epoch=job.epoch)
            await self._abandon(job, "INTERNAL", "The gateway failed inside.")

    async def _put_off(self, job: Job, fault: MinionError) -> None:
        _log.info("a summary is put off", reason=fault.reason, error=fault.message, deferrals=job.deferral_count)
        if job.deferral_count >= _MAXIMUM_DEFERRALS:
            await self._abandon(job, fault.reason, fault.message)
            return
        try:
            await self._store.defer(job, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**job.deferral_count))
        except MinionError as failure:
            # Its lease lapses, and the picker finds it.
            _log.info("a summary could not be put off", reason=failure.reason)

    async def _abandon(self, job: Job, reason: str, message: str) -> None:
        try:
            # What stands now: the job may have come further than when it was taken.
            now = await self._store.load(job.tenant_id, job.session_id)
            if now is not None and now.epoch == job.epoch:
                await self._summarizer.abandon(now, reason, message)
                self._count.labels(Outcome.FAILED.value).inc()
        except (MinionError, LostError):
            _log.info("a summary could not be ended", reason=reason)

    def _span(self, job: Job) -> Span:
        links = []
        if job.trace_id and job.span_id:
            asked = SpanContext(int(job.trace_id, 16), int(job.span_id, 16), is_remote=True, trace_flags=TraceFlags(1))
            links = [Link(asked)] if asked.is_valid else []
        return self._tracer.start_span(
            "summarize session",
            context=Context(),
            kind=SpanKind.INTERNAL,
            links=links,
            attributes={
                attributes.GEN_AI_CONVERSATION_ID: str(job.session_id),
                attributes.MINION_RUN_ID: str(job.run_id),
                attributes.MINION_TENANT_ID: str(job.tenant_id),
            },
        )

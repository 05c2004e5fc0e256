"""Drives runs in tasks of their own: no run hangs on the call that asked for it."""

import asyncio
import contextvars
from dataclasses import dataclass
from uuid import UUID

import structlog
from minion_auth import CallerKind, Identity, acting_as
from minion_errors import MinionError
from minion_telemetry import Telemetry, attributes, bind_fields
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    use_span,
)

from minion_gateway.runs.changes import EndedRun
from minion_gateway.runs.domain import LeasedRun, Run, RunError, RunState
from minion_gateway.runs.engine import Engine
from minion_gateway.runs.events import EventWriter, RunLog
from minion_gateway.runs.failures import AbandonedError, FencedError
from minion_gateway.runs.feeds import Feed, Feeds
from minion_gateway.runs.happenings import RunEvent
from minion_gateway.runs.metrics import RunMetrics
from minion_gateway.runs.store import Loaded, RunStore
from minion_gateway.runs.turn import Turn

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Driven:
    """A run that is driven here."""

    turn: Turn
    feed: Feed
    task: "asyncio.Task[None] | None" = None
    lost: bool = False

    def lose(self) -> None:
        """Stops driving: the run is another's."""
        # The last transaction's own answer is better than what others say meanwhile.
        if self.task is not None and not self.turn.ending:
            self.lost = True
            self.task.cancel()


class Driver:
    """The runs of this replica. `lease_seconds` is how long one stays ours when we die."""

    def __init__(
        self,
        store: RunStore,
        feeds: Feeds,
        writer: EventWriter,
        telemetry: Telemetry,
        metrics: RunMetrics,
        *,
        lease_seconds: float,
        maximum_runs: int,
    ) -> None:
        self._store = store
        self._feeds = feeds
        self._writer = writer
        self._tracer = telemetry.tracer
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._maximum_runs = maximum_runs
        self._driven: dict[UUID, Driven] = {}
        self._draining = False
        self._engine: Engine | None = None

    def use(self, engine: Engine) -> None:
        """Says by what runs are driven; the engine asks the driver whether it takes more, so each knows the other."""
        self._engine = engine

    @property
    def takes_more(self) -> bool:
        """Whether this replica leases runs."""
        return not self._draining

    @property
    def room(self) -> int:
        """How many more runs can be driven here."""
        return max(0, self._maximum_runs - len(self._driven)) if self.takes_more else 0

    def drive(
        self, loaded: Loaded, *, began_at: float, parent: Context | None = None, first: RunEvent | None = None
    ) -> None:
        """Begins to drive a leased run.

        Args:
            began_at: when the lease was asked for, by the loop's clock: it holds at least from then on.
            parent: the trace that the run goes on with; None begins one that is linked to the run's first.
            first: the event that was written when the run was accepted, for those who watch from the beginning.

        Raises FailedPrecondition (AGENT_NOT_ACTIVE) where the agent's behaviour is one of a later release.
        """
        loop = asyncio.get_running_loop()
        run = loaded.run
        feed = self._feeds.open(run.run_id, run.last_event_sequence - (0 if first is None else 1))
        if first is not None:
            feed.publish([first])
        log = RunLog(run, feed, self._writer, lambda: self._lose(run))
        try:
            turn = Turn(
                run,
                loaded.agent,
                loaded.steps,
                loaded.history,
                log,
                deadline=loop.time() + loaded.agent.max_seconds - run.elapsed_seconds,
                fresh_until=began_at + self._lease_seconds,
            )
        except MinionError:
            # Whoever watches would wait for a driver that never comes.
            self._feeds.close(run.run_id, feed)
            raise
        driven = self._driven[run.run_id] = Driven(turn, feed)
        # An empty context: the caller's deadline and identity end with its call, the run does not.
        driven.task = loop.create_task(self._run(driven, parent), context=contextvars.Context())

    async def take(self, tenant_id: UUID, run_id: UUID, *, began_at: float) -> None:
        """Drives a run that was just leased to this replica."""
        stale = self._driven.get(run_id)
        if stale is not None and stale.task is not None:
            # Our own lease ran out under us (the process was paused, or starved): what we began is fenced by now.
            stale.lose()
            await asyncio.wait([stale.task])
        loaded = await self._store.load(tenant_id, run_id)
        if loaded is not None:
            other = self._driven.get(run_id)
            if other is not None:
                # Taken twice at once: handed on to us, and found once its lease had run out before it was read.
                if other.turn.run.epoch >= loaded.run.epoch:
                    return
                other.lose()
            if loaded.run.recovery_count:
                self._metrics.recoveries.inc()
            self.drive(loaded, began_at=began_at)

    def overdue(self) -> "list[Driven]":
        """Returns the runs whose lease is to be renewed: most are over before theirs is a third gone."""
        soon = asyncio.get_running_loop().time() + self._lease_seconds * 0.9
        return [driven for driven in self._driven.values() if driven.turn.fresh_until < soon]

    async def drain(self) -> None:
        """Stops driving and gives every lease back, so that other replicas take over at once."""
        self._draining = True
        tasks = [driven.task for driven in self._driven.values() if driven.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        released = await self._store.release()
        if released:
            _log.info("leases released", count=released)

    def _lose(self, run: LeasedRun) -> None:
        driven = self._driven.get(run.run_id)
        # By the lease: this replica may have lost an earlier one and taken the run again.
        if driven is not None and driven.turn.run is run:
            driven.lose()

    async def _run(self, driven: Driven, parent: Context | None) -> None:
        """One run's task. What fails inside ends the run, never the driver."""
        assert self._engine is not None
        turn = driven.turn
        run = turn.run
        bind_fields(service="gateway", tenant_id=str(run.tenant_id), run_id=str(run.run_id), principal=run.principal)
        identity = Identity(
            kind=CallerKind.SERVICE,
            tenant_id=run.tenant_id,
            principal="service:gateway",
            on_behalf_of=run.principal,
            service="gateway",
        )
        span = self._span(turn, parent)
        self._metrics.held.inc()
        try:
            with acting_as(identity), use_span(span, record_exception=False, set_status_on_exception=False):
                ended = await self._drive(turn, self._engine)
                if ended is not None:
                    result, left = ended
                    _describe(span, result)
                    split = turn.time.split()
                    self._metrics.ended(turn.agent.behavior_type, result.state, split)
                    _log.info(
                        "run ended",
                        state=result.state.value,
                        reason=result.error.reason if result.error else None,
                        steps=result.step_count,
                        duration_ms=round(sum(split.values()) * 1_000, 3),
                    )
        except asyncio.CancelledError:
            _log.info("run let go", epoch=run.epoch)
            if driven.lost:
                self._metrics.lost.inc()
            raise
        finally:
            self._metrics.held.dec()
            span.end()
            if self._driven.get(run.run_id) is driven:
                del self._driven[run.run_id]
            self._feeds.close(run.run_id, driven.feed)
        if ended is not None and left.next_run is not None and self.takes_more:
            try:
                await self.take(run.tenant_id, left.next_run, began_at=left.asked_at)
            except MinionError as fault:
                # Its lease lapses, and the picker finds it.
                _log.warning("the next run could not be read", reason=fault.reason, error=fault.message)

    async def _drive(self, turn: Turn, engine: Engine) -> tuple[Run, EndedRun] | None:
        try:
            result, ended = await engine.drive(turn)
        except FencedError:
            _log.warning("another replica drives the run", epoch=turn.run.epoch)
            self._metrics.lost.inc()
            return None
        except AbandonedError:
            _log.error("run abandoned: the database can't be reached", epoch=turn.run.epoch)
            return None
        except Exception:  # noqa: BLE001 - the one handler around a run: whatever it stumbles over, it must end
            _log.exception("the engine stumbled", epoch=turn.run.epoch)
            return await self._give_up(turn, engine)
        return result, ended

    async def _give_up(self, turn: Turn, engine: Engine) -> tuple[Run, EndedRun] | None:
        """Ends a run that can't be driven; where that fails too, recoveries run out and end it."""
        try:
            result, ended = await engine.fail(turn, RunError("INTERNAL", "The gateway failed inside."))
        except Exception:  # noqa: BLE001 - as above
            _log.exception("the run could not be ended", epoch=turn.run.epoch)
            return None
        return result, ended

    def _span(self, turn: Turn, parent: Context | None) -> Span:
        run, agent = turn.run, turn.agent
        links = []
        if parent is None and run.trace_id and run.span_id:
            first = SpanContext(int(run.trace_id, 16), int(run.span_id, 16), is_remote=True, trace_flags=TraceFlags(1))
            links = [Link(first)] if first.is_valid else []
        return self._tracer.start_span(
            f"{attributes.OPERATION_INVOKE_AGENT} {agent.name}",
            context=parent or Context(),
            kind=SpanKind.INTERNAL,
            links=links,
            attributes={
                attributes.GEN_AI_OPERATION_NAME: attributes.OPERATION_INVOKE_AGENT,
                attributes.GEN_AI_AGENT_ID: str(run.agent_id),
                attributes.GEN_AI_AGENT_NAME: agent.name,
                attributes.GEN_AI_CONVERSATION_ID: str(run.session_id),
                attributes.GEN_AI_AGENT_VERSION: str(agent.revision),
                attributes.MINION_RUN_ID: str(run.run_id),
                attributes.MINION_TENANT_ID: str(run.tenant_id),
            },
        )


def _describe(span: Span, run: Run) -> None:
    span.set_attribute(attributes.MINION_RUN_STATE, run.state.value)
    span.set_attribute(attributes.GEN_AI_USAGE_INPUT_TOKENS, run.usage.input_tokens)
    span.set_attribute(attributes.GEN_AI_USAGE_OUTPUT_TOKENS, run.usage.output_tokens)
    if run.usage.cached_tokens:
        span.set_attribute(attributes.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, run.usage.cached_tokens)
    if run.cost_nanos is not None:
        span.set_attribute(attributes.MINION_COST_NANOS, run.cost_nanos)
    if run.state is RunState.FAILED and run.error is not None:
        span.set_attribute(attributes.ERROR_TYPE, run.error.reason)
        span.set_status(Status(StatusCode.ERROR, run.error.reason))

"""Accepting runs, and telling of them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NoReturn
from uuid import UUID

from minion_auth import caller, tenant
from minion_errors import AlreadyExists, FailedPrecondition, MinionError, NotFound, ResourceExhausted, Unavailable
from minion_postgres import pages
from opentelemetry.context import get_current
from opentelemetry.trace import get_current_span
from uuid_utils.compat import uuid7

from minion_gateway.agents.service import Agents
from minion_gateway.inference.service import Inference
from minion_gateway.runs import prompt
from minion_gateway.runs.behaviours import behaviour_of
from minion_gateway.runs.changes import AttemptBegin
from minion_gateway.runs.domain import (
    QUEUE_LIMIT,
    History,
    LeasedRun,
    NewRun,
    Run,
    RunPage,
    RunState,
    Step,
    StepKind,
    run_not_found,
    sequence_ahead,
)
from minion_gateway.runs.driver import Driver
from minion_gateway.runs.events import UNCERTAIN
from minion_gateway.runs.feeds import Feed, Feeds
from minion_gateway.runs.happenings import RunEvent, StateChanged
from minion_gateway.runs.listed_steps import StepPage, StepReader
from minion_gateway.runs.peer import SessionPeer
from minion_gateway.runs.points import point
from minion_gateway.runs.store import Acceptance, Loaded, Outcome, RunFilter, RunStore, Submission

_EVENTS_A_READ = 200
_ALIVE_SECONDS = 1.0
# The session's word, which a run that had been accepted could only hear afterwards.
_REFUSED_BY_SESSION = frozenset({"SESSION_NOT_ACTIVE", "SESSION_NOT_FOUND"})


class Runs:
    """The turns of all tenants. A run that was acknowledged goes on whether or not anybody watches."""

    def __init__(
        self,
        store: RunStore,
        driver: Driver,
        feeds: Feeds,
        sessions: SessionPeer,
        agents: Agents,
        inference: Inference,
        *,
        steps: StepReader,
        poll_seconds: float,
    ) -> None:
        self._store = store
        self._steps = steps
        self._driver = driver
        self._feeds = feeds
        self._sessions = sessions
        self._agents = agents
        self._inference = inference
        self._poll_seconds = poll_seconds

    async def create(self, new: NewRun) -> Run:
        """Runs a turn and waits until it ends, or waits for a person.

        Raises what `accept` does, and the session's own refusal when it came first from there.
        """
        run_id = await self._accept(new, streamed=False)
        async with aclosing(self._events(tenant(), run_id, 0)) as events:
            async for event in events:
                if event.run is not None:
                    return self._accepted_by_session(event.run)
                if isinstance(event.payload, StateChanged) and event.payload.state is RunState.INPUT_REQUIRED:
                    break
        return await self.get(run_id)

    async def stream(self, new: NewRun) -> AsyncGenerator[RunEvent, None]:
        """Runs a turn and yields its events from the first to the last."""
        run_id = await self._accept(new, streamed=True)
        async with aclosing(self._events(tenant(), run_id, 0)) as events:
            async for event in events:
                yield event
                if event.run is not None:
                    self._accepted_by_session(event.run)

    async def get(self, run_id: UUID) -> Run:
        """Returns a run. Raises NotFound (RUN_NOT_FOUND)."""
        run = await self._store.get(tenant(), run_id)
        if run is None:
            raise run_not_found(run_id)
        return run

    async def watch(self, run_id: UUID, after: int) -> AsyncGenerator[RunEvent, None]:
        """Yields a run's events after a sequence until its last.

        Raises NotFound (RUN_NOT_FOUND), InvalidArgument (SEQUENCE_AHEAD).
        """
        run = await self.get(run_id)
        if after > run.last_event_sequence:
            raise sequence_ahead(run_id, run.last_event_sequence)
        if run.state.is_terminal and after == run.last_event_sequence:
            return
        async with aclosing(self._events(tenant(), run_id, after)) as events:
            async for event in events:
                yield event

    async def list(self, wanted: RunFilter, page_size: int, page_token: str) -> RunPage:
        """Returns runs, newest first. Raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        filters = {
            "session_id": wanted.session_id,
            "agent_id": wanted.agent_id,
            "state": wanted.state.value if wanted.state else None,
        }
        before: UUID | None = None
        if page_token:
            (decoded,) = pages.decode(page_token, filters, [UUID])
            before = decoded if isinstance(decoded, UUID) else None
        shown, has_more = await self._store.page(tenant(), wanted, before, page_size)
        return RunPage(shown, pages.encode([shown[-1].run_id], filters) if has_more else "")

    async def steps(self, run_id: UUID, page_size: int, page_token: str) -> StepPage:
        """Returns steps of a run, in order. Raises NotFound (RUN_NOT_FOUND), InvalidArgument (PAGE_TOKEN_INVALID)."""
        await self.get(run_id)
        filters = {"run_id": run_id}
        after = 0
        if page_token:
            (decoded,) = pages.decode(page_token, filters, [int])
            after = decoded if isinstance(decoded, int) else 0
        found = await self._steps.page(tenant(), run_id, after, page_size + 1)
        shown = tuple(found[:page_size])
        return StepPage(shown, pages.encode([shown[-1].sequence], filters) if len(found) > page_size else "")

    async def _accept(self, new: NewRun, *, streamed: bool) -> UUID:
        """Accepts a run and sees to it that it is driven; returns its id, or that of the run it repeats."""
        tenant_id = tenant()
        try:
            submission = await self._submission(tenant_id, new, streamed=streamed)
        except MinionError:
            # What was accepted once is accepted still, whatever became of its session and agent.
            if new.request_id is not None and (known := await self._repeated(tenant_id, new)) is not None:
                return known
            raise
        began_at = asyncio.get_running_loop().time()
        point("accept.before")
        acceptance = await self._accepted(submission)
        point("accept.after")
        match acceptance.outcome:
            case Outcome.WORKING:
                self._drive(submission, acceptance, began_at)
            case Outcome.SUBMITTED | Outcome.REPLAYED:
                pass
            case _:
                _refuse(acceptance, new)
        return acceptance.run_id

    async def _submission(self, tenant_id: UUID, new: NewRun, *, streamed: bool) -> Submission:
        if not self._driver.room:
            raise Unavailable("This replica takes no more runs for now.", reason="SERVICE_STOPPING")
        facts = await self._sessions.facts(new.session_id)
        resolution = await self._agents.resolve(facts.agent_id)
        resolution.check_active()
        snapshot = resolution.snapshot_for(new.session_id)
        agent = snapshot.agent
        behaviour_of(agent.behavior_type)
        span = get_current_span().get_span_context()
        return Submission(
            tenant_id=tenant_id,
            run_id=UUID(int=uuid7().int),
            principal=caller().origin,
            new=new,
            session=facts,
            agent=snapshot,
            streamed=streamed,
            trace_id=f"{span.trace_id:032x}" if span.is_valid else "",
            # Whoever goes on with the trace later asks for this: of one that isn't recorded nothing shall be.
            span_id=f"{span.span_id:016x}" if span.is_valid and span.trace_flags.sampled else "",
            # The first question's intent goes with the acceptance: one commit less. What it may cost is bounded by
            # the agent's policies, and exactly before the call where the prompt turns out larger.
            steps=(Step(1, StepKind.BEGIN), Step(2, StepKind.LLM)),
            attempts=(self._first_attempt(agent.model, prompt.policy_bound(agent), agent.max_output_tokens),),
        )

    def _first_attempt(self, model: str, bound: int, output: int) -> AttemptBegin:
        full = self._inference.full_name(model)
        worst = self._inference.price_bound(full, input_tokens=bound, output_tokens=output)
        return AttemptBegin(2, 1, full, worst, bound, output)

    async def _accepted(self, submission: Submission) -> Acceptance:
        try:
            return await self._store.accept(submission)
        except UNCERTAIN:
            # The acknowledgement may have been lost: the run's own id tells.
            found = await self._store.fence_of(submission.tenant_id, submission.run_id)
            run = await self._store.get(submission.tenant_id, submission.run_id)
            if found is None or run is None:
                raise
            # One that waited, and began on the replica that drove the run before it, has told of that by now.
            ours = found[0].epoch == 1 and found[0].last_event == 1 and found[1] is RunState.WORKING
            return Acceptance(Outcome.WORKING if ours else Outcome.SUBMITTED, run.run_id, run.create_time)

    def _drive(self, submission: Submission, acceptance: Acceptance, began_at: float) -> None:
        new, session = submission.new, submission.session
        run = LeasedRun(
            tenant_id=submission.tenant_id,
            run_id=submission.run_id,
            session_id=new.session_id,
            agent_id=session.agent_id,
            user_id=session.user_id,
            principal=submission.principal,
            text=new.text,
            metadata=new.metadata,
            streamed=submission.streamed,
            trace_id=submission.trace_id,
            span_id=submission.span_id,
            epoch=1,
            create_time=acceptance.time,
        )
        self._driver.drive(
            Loaded(run, submission.agent.agent, tuple(submission.steps), History()),
            began_at=began_at,
            parent=get_current(),
            first=RunEvent(run.run_id, 1, acceptance.time, StateChanged(RunState.WORKING)),
        )

    async def _repeated(self, tenant_id: UUID, new: NewRun) -> UUID | None:
        assert new.request_id is not None
        known = await self._store.find_request(tenant_id, new.request_id)
        if known is None:
            return None
        if known[1] != new.digest:
            raise _reused(new.request_id)
        return known[0]

    def _accepted_by_session(self, run: Run) -> Run:
        """Returns a run that ended; raises the session's refusal where that is why, as if it had come before."""
        if run.error is not None and run.error.reason in _REFUSED_BY_SESSION:
            metadata = {"session_id": str(run.session_id), "run_id": str(run.run_id)}
            kind = NotFound if run.error.reason == "SESSION_NOT_FOUND" else FailedPrecondition
            raise kind(run.error.message, reason=run.error.reason, metadata=metadata)
        return run

    async def _events(self, tenant_id: UUID, run_id: UUID, after: int) -> AsyncGenerator[RunEvent, None]:
        """Yields committed events after a sequence: from memory when the run is driven here, else by reading."""
        feed: Feed | None = None
        while True:
            if feed is None or not feed.live:
                feed = self._feeds.get(run_id) or feed
            events = feed.after(after) if feed is not None else None
            if events is None:
                events = await self._store.events(tenant_id, run_id, after, _EVENTS_A_READ)
                if not events and (feed is None or not feed.live):
                    await asyncio.sleep(self._poll_seconds)
            for event in events:
                yield event
                after = event.sequence
                if event.is_last:
                    return
            if not events and feed is not None and feed.live:
                await feed.changed(after, _ALIVE_SECONDS)


def _refuse(acceptance: Acceptance, new: NewRun) -> NoReturn:
    match acceptance.outcome:
        case Outcome.REUSED if new.request_id is not None:
            raise _reused(new.request_id)
        case Outcome.QUEUE_FULL:
            raise ResourceExhausted(
                f"{QUEUE_LIMIT} runs wait in the session.",
                reason="QUEUE_FULL",
                metadata={"session_id": str(new.session_id)},
            )
        case _:
            raise FailedPrecondition(
                "Another run is active in the session.",
                reason="SESSION_BUSY",
                metadata={"session_id": str(new.session_id), "run_id": str(acceptance.run_id)},
            )


def _reused(request_id: UUID) -> AlreadyExists:
    return AlreadyExists(
        "This request_id came before with another request.",
        reason="REQUEST_ID_REUSED",
        metadata={"request_id": str(request_id)},
    )

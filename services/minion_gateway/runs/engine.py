"""Drives a run from its open steps to its end.

Intent before effect: a step is committed as STARTED before anything is done for it, and its result is committed with
the next intents. So the open steps alone say what is to be done, and a run that is taken over goes on as one that was
just accepted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

import structlog
from minion_errors import MinionError

from minion_gateway.runs import audits
from minion_gateway.runs.asking import Asking, ModelFailedError
from minion_gateway.runs.beginning import Beginning
from minion_gateway.runs.behaviours import Answer, AskModel, CallTools
from minion_gateway.runs.calling import Calling
from minion_gateway.runs.changes import AttemptState, EndedRun, Ending
from minion_gateway.runs.domain import LlmResult, Run, RunError, RunState, Step, StepKind, StepState, ToolIntent
from minion_gateway.runs.events import UNCERTAIN
from minion_gateway.runs.failures import AbandonedError, FencedError, RunFailedError, passes
from minion_gateway.runs.happenings import AttemptSuperseded, Ended, Numbered, StateChanged, ToolStarted
from minion_gateway.runs.peer import SessionPeer
from minion_gateway.runs.points import point
from minion_gateway.runs.store import RunStore
from minion_gateway.runs.transcript import appends_of, measured, tokens_of
from minion_gateway.runs.turn import Turn

_R = TypeVar("_R")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
# Answers that were paid for are not thrown away for a session that is away for a moment.
_APPEND_GRACE = 30.0
# How long the engine tries to reach its own database before it leaves the run to its lease.
_PATIENCE = 60.0
_log = structlog.get_logger()


class Engine:
    """Drives runs, any number at once; one call a run."""

    def __init__(
        self,
        store: RunStore,
        sessions: SessionPeer,
        beginning: Beginning,
        asking: Asking,
        calling: Calling,
        *,
        maximum_recoveries: int,
        takes_next: Callable[[], bool],
        summary_asked: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._beginning = beginning
        self._asking = asking
        self._calling = calling
        self._maximum_recoveries = maximum_recoveries
        self._takes_next = takes_next
        self._summary_asked = summary_asked

    async def drive(self, turn: Turn) -> tuple[Run, EndedRun]:
        """Drives a run until it has left WORKING; returns it, and what took its place in the session.

        Raises FencedError when another replica has it, and AbandonedError when the database can't be reached for long:
        in both cases nothing more was written.
        """
        try:
            if not turn.run.accepted and not await self._recover(turn):
                return await self._suspend(turn)
            return await self._proceed(turn)
        except RunFailedError as failure:
            return await self._fail(turn, failure)

    async def fail(self, turn: Turn, error: RunError) -> tuple[Run, EndedRun]:
        """Ends a run that the engine itself has stumbled over."""
        return await self._fail(turn, RunFailedError(error.reason, error.message))

    async def _proceed(self, turn: Turn) -> tuple[Run, EndedRun]:
        while True:
            opened = turn.open()
            if not opened:
                await self._next(turn)
                await self._commit(turn)
                continue
            if opened[0].kind is StepKind.APPEND:
                await self._append(turn, opened)
                return await self._complete(turn)
            if tools := [step for step in opened if step.kind is StepKind.TOOL]:
                if not await self._call(turn, tools):
                    return await self._suspend(turn)
                continue
            await self._ask(turn)

    async def _recover(self, turn: Turn) -> bool:
        """Decides what becomes of steps that a driver before us had begun; False when a person must."""
        run = turn.run
        if run.recovery_count > self._maximum_recoveries:
            raise RunFailedError(
                "RECOVERY_LIMIT", f"The run was recovered {run.recovery_count} times and died each time."
            )
        _log.info("run recovered", epoch=run.epoch, recoveries=run.recovery_count, open=len(turn.open()))
        if asked := turn.open(StepKind.LLM):
            step = asked[0]
            turn.end_attempt(step, AttemptState.LOST, reason="REPLICA_LOST")
            again = turn.begin_attempt(self._asking.attempt(turn, step, step.attempt + 1))
            if turn.history.shown_from is not None:
                turn.tell(AttemptSuperseded(again.sequence, again.attempt, turn.history.shown_from))
            await self._commit(turn)
        for step in turn.open(StepKind.TOOL):
            if step.intent is not None and not turn.effect(step.intent).may_repeat:
                self._give_to_a_person(turn, step, step.intent)
        return all(step.state is not StepState.UNKNOWN for step in turn.steps)

    async def _ask(self, turn: Turn) -> None:
        """Asks the model, after the turn was begun in the session; commits the answer with what comes of it."""
        if turn.context is None:
            async with self._limited(turn):
                await self._patiently(lambda: self._beginning.open(turn, self._store), within=turn.deadline)
            point("begin.after")
        step = turn.open(StepKind.LLM)[0]
        if self._asking.reserve(turn, step):
            await self._commit(turn)
        point("llm.before")
        while True:
            await self._check_lease(turn)
            try:
                async with self._limited(turn):
                    result = await self._asking.ask(turn, step)
                break
            except ModelFailedError as failure:
                step = await self._after_failure(turn, step, failure)
            except RunFailedError as failure:
                turn.end_attempt(step, AttemptState.FAILED, reason=failure.reason)
                turn.end(step, StepState.FAILED)
                turn.audit(audits.model_failed(turn, step, failure.reason, failure.message))
                raise
        point("llm.answered")
        self._asking.settle(turn, step, result)
        await self._next(turn)
        await self._commit(turn)
        point("llm.committed")

    async def _after_failure(self, turn: Turn, step: Step, failure: ModelFailedError) -> Step:
        """Tries a cut answer once more under the next attempt; any other failure is the run's.

        The provider's layer has tried again by itself what failed before the first word.
        """
        shown = turn.log.forget_text(step.sequence, step.attempt)
        cost = 0 if failure.uncharged else None
        turn.end_attempt(step, AttemptState.FAILED, cost_nanos=cost, reason=failure.error.reason)
        if not failure.was_cut or step.attempt > 1:
            turn.end(step, StepState.FAILED)
            turn.audit(audits.model_failed(turn, step, failure.error.reason, failure.error.message))
            raise RunFailedError(failure.error.reason, failure.error.message)
        again = turn.begin_attempt(self._asking.attempt(turn, step, step.attempt + 1))
        if shown is not None:
            turn.tell(AttemptSuperseded(again.sequence, again.attempt, shown))
        await self._commit(turn)
        return again

    async def _call(self, turn: Turn, steps: list[Step]) -> bool:
        """Calls tools and commits their results; False when what one did is not known, and a person must decide.

        What acts every time is called one by one and committed at once; the rest goes together, with what comes of it.
        """
        point("tools.before")
        risky = [s for s in steps if s.intent is not None and not turn.effect(s.intent).may_repeat]
        for step in risky:
            await self._check_lease(turn)
            outcome = None
            try:
                async with self._limited(turn):
                    outcome = await self._calling.call(turn, step)
            except RunFailedError:
                # A run that is out of time knows no more of what its tool did than a tool that is.
                if step.sequence not in turn.called_at:
                    raise
            if step.intent is not None and (outcome is None or outcome.uncertain):
                self._give_to_a_person(turn, step, step.intent)
                return False
            assert outcome is not None
            self._calling.settle(turn, step, outcome)
            if turn.open(StepKind.TOOL):
                await self._commit(turn)
        if rest := [step for step in steps if step not in risky]:
            await self._check_lease(turn)
            async with self._limited(turn):
                outcomes = await self._calling.call_all(turn, rest)
            for step, outcome in zip(rest, outcomes, strict=True):
                self._calling.settle(turn, step, outcome)
        point("tools.done")
        await self._next(turn)
        await self._commit(turn)
        point("tools.committed")
        return True

    async def _next(self, turn: Turn) -> None:
        """Stages the intents of the next move."""
        match turn.behaviour.next(turn.steps):
            case AskModel():
                asked = sum(1 for step in turn.steps if step.kind is StepKind.LLM)
                if asked >= turn.agent.max_steps:
                    raise RunFailedError(
                        "STEP_LIMIT", f"The run asked for more than {turn.agent.max_steps} model calls."
                    )
                step = turn.begin(StepKind.LLM)
                turn.begin_attempt(self._asking.attempt(turn, step, 1))
            case CallTools(calls=calls):
                for call in calls:
                    step = turn.begin(StepKind.TOOL, ToolIntent(call.call_id, call.name, call.arguments))
                    turn.tell(ToolStarted(step.sequence, call.call_id, call.name, call.arguments))
            case Answer():
                for _ in await measured(appends_of, turn.steps):
                    turn.begin(StepKind.APPEND)

    async def _append(self, turn: Turn, steps: list[Step]) -> None:
        """Puts the turn's messages into the session, and lets go of it."""
        appends = await measured(appends_of, turn.steps)
        within = turn.deadline + _APPEND_GRACE
        for step, said in zip(steps, appends, strict=True):
            point("append.before")
            await self._check_lease(turn)
            release = step is steps[-1]

            async def send(step: Step = step, said: list = said, release: bool = release) -> None:  # type: ignore[type-arg]
                if said:
                    await self._sessions.append(turn.run, turn.agent.name, said, step=step.sequence, release=release)
                else:
                    await self._sessions.release(turn.run.session_id, turn.run.run_id)

            await self._patiently(send, within=within)
            turn.end(step, StepState.DONE)
        point("append.done")

    async def _complete(self, turn: Turn) -> tuple[Run, EndedRun]:
        answer = next((s.result.text for s in reversed(turn.steps) if isinstance(s.result, LlmResult)), "")
        # Begun with the run's end, made after it: the answer waits for nothing, and the session is free.
        asks = await self._may_need_summary(turn)
        if asks:
            turn.begin(StepKind.SUMMARY)
        ended = await self._leave(turn, Ending(RunState.COMPLETED, answer))
        if asks:
            self._summary_asked()
        return ended

    async def _may_need_summary(self, turn: Turn) -> bool:
        """Whether the session may have come to what the agent's policy asks; whoever makes the summary looks exactly.

        While all of a short session fits into the context, its tokens are known, and nobody has to look.
        """
        policy = turn.agent.summary
        if policy is None:
            return False
        known = turn.session_tokens
        return known is None or known + await measured(tokens_of, turn.steps) > policy.trigger_tokens

    async def _suspend(self, turn: Turn) -> tuple[Run, EndedRun]:
        error = RunError("EFFECT_UNKNOWN", "Whether a tool took effect is not known; a person must decide.")
        return await self._leave(turn, Ending(RunState.INPUT_REQUIRED, error=error))

    async def _fail(self, turn: Turn, failure: RunFailedError) -> tuple[Run, EndedRun]:
        # Whatever is open ends here. A model that may have been asked, by a replica that died or by one that stumbled
        # over its answer, stays at its worst case; one that was not asked yet costs nothing.
        for step in turn.open():
            if step.kind is StepKind.LLM:
                state = AttemptState.LOST if failure.reason == "RECOVERY_LIMIT" else AttemptState.FAILED
                cost = None if failure.reason in {"RECOVERY_LIMIT", "INTERNAL"} else 0
                turn.end_attempt(step, state, cost_nanos=cost, reason=failure.reason)
            turn.end(step, StepState.SKIPPED if step.kind is StepKind.APPEND else StepState.FAILED)
        try:
            async with asyncio.timeout(2):
                await self._sessions.release(turn.run.session_id, turn.run.run_id)
        except (MinionError, TimeoutError) as fault:
            # The hold lapses by itself.
            _log.info("the session was not released", error=str(fault))
        if failure.reason in {"SESSION_NOT_ACTIVE", "SESSION_NOT_FOUND"}:
            self._sessions.forget(turn.run.tenant_id, turn.run.session_id)
        return await self._leave(turn, Ending(RunState.FAILED, error=RunError(failure.reason, failure.message)))

    async def _leave(self, turn: Turn, ending: Ending) -> tuple[Run, EndedRun]:
        """Commits the end, or the pause, of a run."""
        point("complete.before")
        if ending.state.is_terminal:
            turn.tell(Ended())
            turn.audit(audits.run_ended(turn, ending))
        else:
            turn.tell(StateChanged(ending.state))
        events = await turn.log.take()
        turn.ending = True
        fence, change = turn.change(events)

        async def write() -> EndedRun | None:
            asked_at = asyncio.get_running_loop().time()
            ended = await self._store.end(fence, change, ending, takes_next=self._takes_next())
            return None if ended is None else replace(ended, asked_at=asked_at)

        async def read() -> EndedRun | None:
            stored = await self._store.events(fence.tenant_id, fence.run_id, events[0].sequence - 1, 1)
            return EndedRun(stored[0].create_time, None)

        ended = await self._written(fence.version, turn, events, write, read)
        run = turn.ended_run(ending, ended.time)
        turn.log.deliver(events, ended.time, run)
        point("complete.after")
        return run, ended

    async def _commit(self, turn: Turn) -> None:
        """Writes what was staged, and shows what happened."""
        events = await turn.log.take()
        fence, change = turn.change(events)

        async def write() -> datetime | None:
            return await self._store.advance(fence, change)

        async def read() -> datetime | None:
            if not events:
                return turn.run.create_time
            stored = await self._store.events(fence.tenant_id, fence.run_id, events[0].sequence - 1, 1)
            return stored[0].create_time

        time = await self._written(fence.version, turn, events, write, read)
        turn.log.deliver(events, time)

    async def _written(
        self,
        version: int,
        turn: Turn,
        events: list[Numbered],
        write: Callable[[], Awaitable[_R | None]],
        read: Callable[[], Awaitable[_R | None]],
    ) -> _R:
        """Writes a change, and says so to the turn; where the database refuses it, the turn goes back to what stands.

        Raises FencedError when the run is another's, AbandonedError when the database stays away, and what the
        database has against the change.
        """
        try:
            written = await self._once(version, turn, write, read)
        except (FencedError, AbandonedError):
            raise
        except Exception:
            turn.refused(events)
            raise
        turn.written()
        return written

    async def _once(
        self,
        version: int,
        turn: Turn,
        write: Callable[[], Awaitable[_R | None]],
        read: Callable[[], Awaitable[_R | None]],
    ) -> _R:
        """Writes once. An acknowledgement that was lost is not retried blindly: the run's version tells what stands."""
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + _PATIENCE, _FIRST_PAUSE
        uncertain = False
        while True:
            try:
                if uncertain and (stands := await self._standing(version, turn, read)) is not None:
                    return stands
                if (written := await write()) is not None:
                    return written
                # An earlier try may have been on its way still when it was looked for.
                if uncertain and (stands := await self._standing(version, turn, read)) is not None:
                    return stands
                raise FencedError
            except UNCERTAIN as fault:
                _log.warning("a change was not acknowledged", error=fault.message, reason=fault.reason)
                uncertain = True
                if loop.time() > give_up:
                    raise AbandonedError from fault
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _standing(self, version: int, turn: Turn, read: Callable[[], Awaitable[_R | None]]) -> _R | None:
        """Reads what stands of a change; None where it was not written. Raises FencedError when another has the run."""
        found = await self._store.fence_of(turn.run.tenant_id, turn.run.run_id)
        if found is None or found[0].epoch != turn.run.epoch or found[0].version > version + 1:
            raise FencedError
        if found[0].version <= version:
            return None
        stands = await read()
        assert stands is not None
        return stands

    async def _check_lease(self, turn: Turn) -> None:
        """Asks whose run it is, where the lease may have run out unnoticed: a process can be paused at any point."""
        if asyncio.get_running_loop().time() < turn.fresh_until:
            return
        try:
            held = await self._store.renew([turn.run])
        except UNCERTAIN as fault:
            raise AbandonedError from fault
        if turn.run.run_id not in held:
            raise FencedError

    @asynccontextmanager
    async def _limited(self, turn: Turn) -> AsyncIterator[None]:
        """Stops what is inside when the run is out of time. No transaction of ours is ever inside."""
        if asyncio.get_running_loop().time() >= turn.deadline:
            # Nothing is begun that would be stopped in its first moment.
            raise _out_of_time(turn)
        limit = asyncio.timeout_at(turn.deadline)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise _out_of_time(turn) from None

    async def _patiently(self, call: Callable[[], Awaitable[None]], *, within: float) -> None:
        """Calls a peer until it answers; what it refuses for good is the run's failure."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            try:
                await call()
                return
            except MinionError as fault:
                if not passes(fault) or loop.time() + pause > within:
                    raise RunFailedError(fault.reason, fault.message) from fault
                _log.info("a peer is asked again", reason=fault.reason, error=fault.message)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _give_to_a_person(self, turn: Turn, step: Step, intent: ToolIntent) -> None:
        turn.end(step, StepState.UNKNOWN)
        turn.audit(audits.effect_unknown(turn, step, intent))


def _out_of_time(turn: Turn) -> RunFailedError:
    return RunFailedError("TIME_LIMIT", f"The run took longer than {turn.agent.max_seconds:g} s.")

"""Making summaries: what is due is read, a model is asked, its answer committed, then saved in the session.

Intent before effect, as in a run: the step was begun with the run's end, each question is committed as an attempt
before it is asked, and a summary is saved only from a committed result, under its step, which saves once for ever. So
the step and its attempts alone say what is to be done, and a job that is taken over goes on as one that was just begun.
"""

import asyncio
import enum
from datetime import UTC, datetime

import structlog
from minion_errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MinionError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

from minion_gateway.inference import summary_section
from minion_gateway.inference.domain import Completion, CompletionRequest, FinishReason
from minion_gateway.inference.estimator import bound_request
from minion_gateway.inference.service import Inference
from minion_gateway.runs.changes import AttemptBegin, AttemptEnd, AttemptState, Charge
from minion_gateway.runs.cleaning import clean
from minion_gateway.runs.domain import StepState, TokenUsage
from minion_gateway.runs.events import UNCERTAIN
from minion_gateway.runs.points import point
from minion_gateway.runs.prompt import attempt_name
from minion_gateway.summaries import audits
from minion_gateway.summaries.domain import Asked, Job, Plan, Reading, SummaryResult, ended_whole, shortened
from minion_gateway.summaries.peer import SummaryPeer
from minion_gateway.summaries.store import SummaryChange, SummaryStore

_log = structlog.get_logger()

_LONGEST_TEXT = 100_000
# Characters that an earlier summary may take of a question in any case; else a quarter of what the question takes.
_LONGEST_BEFORE = 20_000
# How long a commit is tried: less than a lease.
_PATIENCE = 3.0
_FIRST_PAUSE = 0.05
# The peer is away for now: what was committed stands, and the job is tried again.
AWAY = (Unavailable, DeadlineExceeded, Aborted, ResourceExhausted)


class LostError(Exception):
    """Another replica has the job: this one stops, and writes nothing."""


class Outcome(enum.Enum):
    """What became of a job."""

    MADE = "made"
    SKIPPED = "skipped"
    FAILED = "failed"


class Summarizer:
    """Works on jobs, any number at once; one call a job. A job that fails harms no run."""

    def __init__(
        self,
        store: SummaryStore,
        sessions: SummaryPeer,
        inference: Inference,
        *,
        input_tokens: int,
        maximum_recoveries: int,
        answer_seconds: float,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._inference = inference
        self._input_tokens = input_tokens
        self._maximum_recoveries = maximum_recoveries
        self._answer_seconds = answer_seconds

    async def work(self, job: Job) -> Outcome:
        """Makes the summaries that are due, each a step, until nothing is left.

        Raises LostError when another replica has the job, and one of `AWAY` when a peer is: then it is to be put off.
        """
        point("summary.before")
        outcome = Outcome.SKIPPED
        if job.recovery_count > self._maximum_recoveries and job.result is None:
            return await self._give_up(job, "RECOVERY_LIMIT", "It was recovered too often.")
        while True:
            result = job.result
            if result is None:
                try:
                    plan = await self._plan(job)
                except (NotFound, FailedPrecondition) as fault:
                    return await self._give_up(job, fault.reason, fault.message)
                if plan is None:
                    await self._advance(job, SummaryChange(StepState.SKIPPED, is_over=True))
                    return outcome
                result = await self._written(job, plan)
                if result is None:
                    return Outcome.FAILED
            try:
                await self._sessions.save(job, result)
            except (NotFound, FailedPrecondition, InvalidArgument) as fault:
                return await self._give_up(job, fault.reason, fault.message, result)
            point("summary.saved")
            outcome = Outcome.MADE
            await self._advance(
                job, SummaryChange(StepState.DONE, result, goes_on=result.more, is_over=not result.more)
            )
            point("summary.done")
            _log.info("session summarized", last_sequence=result.last_sequence, model=result.model)
            if not result.more:
                return outcome
            job = job.next_step()

    async def abandon(self, job: Job, reason: str, message: str) -> None:
        """Ends a job that was put off too often, or over which the service has stumbled."""
        await self._give_up(job, reason, message, job.result)

    async def _plan(self, job: Job) -> Plan | None:
        """Reads what no summary covers; None where none is due. Its cost doesn't grow with the session."""
        newest = await self._sessions.newest(job.session_id)
        last = await self._sessions.last_sequence(job.session_id)
        reading = Reading(newest, last, job.policy, self._input_tokens)
        while not reading.done:
            page = await self._sessions.messages(job.session_id, reading.place)
            if not page:
                break
            reading.take(page)
        return reading.plan()

    async def _written(self, job: Job, plan: Plan) -> SummaryResult | None:
        """Asks the model and commits its answer; None when it gave none, which ends the job."""
        number = job.attempt + 1 if job.asked else job.attempt
        request = self._request(job, plan, number)
        bound = bound_request(request)
        full = self._inference.full_name(job.model)
        target = job.policy.target_tokens
        worst = self._inference.price_bound(full, input_tokens=bound, output_tokens=target)
        lost = (AttemptEnd(job.step, job.attempt, AttemptState.LOST, reason="REPLICA_LOST"),) if job.asked else ()
        begun = AttemptBegin(job.step, number, full, worst, bound, target)
        await self._advance(job, SummaryChange(StepState.STARTED, attempts_ended=lost, attempts_begun=(begun,)))
        point("summary.asking")
        asked = Asked(number, datetime.now(UTC))
        try:
            async with asyncio.timeout(self._answer_seconds):
                completion = await self._inference.complete(request)
            result = _result(plan, completion)
        except (MinionError, TimeoutError) as fault:
            await self._failed(job, plan, asked, full, fault)
            return None
        point("summary.answered")
        change = SummaryChange(
            StepState.STARTED,
            result,
            attempts_ended=(AttemptEnd(job.step, number, AttemptState.DONE, result.cost_nanos),),
            charges=(Charge(job.step, "llm", result.model, result.usage, result.cost_nanos),),
            audit=(audits.written(job, asked, result),),
        )
        await self._advance(job, change)
        point("summary.committed")
        return result

    def _request(self, job: Job, plan: Plan, attempt: int) -> CompletionRequest:
        return CompletionRequest(
            model=job.model,
            messages=summary_section.render(
                # What was said last stands at its end.
                shortened(plan.before.text, max(_LONGEST_BEFORE, self._input_tokens)),
                (entry.text for entry in plan.entries if entry.text),
                target_tokens=job.policy.target_tokens,
            ),
            maximum_output_tokens=job.policy.target_tokens,
            attempt=attempt_name(job.run_id, job.step, attempt),
        )

    async def _failed(self, job: Job, plan: Plan, asked: Asked, model: str, fault: Exception) -> None:
        """Commits that the model gave no answer. The session's next turn asks anew."""
        if isinstance(fault, MinionError):
            reason, message, uncharged = fault.reason, fault.message, fault.metadata.get("charged") == "no"
        else:
            reason, message, uncharged = "PROVIDER_TIMEOUT", "The model took too long.", False
        _log.warning("a summary failed", reason=reason, error=message)
        ended = AttemptEnd(job.step, asked.attempt, AttemptState.FAILED, 0 if uncharged else None, reason)
        audit = audits.failed(job, asked, plan, model, reason, message)
        await self._advance(job, SummaryChange(StepState.FAILED, is_over=True, attempts_ended=(ended,), audit=(audit,)))

    async def _give_up(self, job: Job, reason: str, message: str, result: SummaryResult | None = None) -> Outcome:
        _log.warning("a summary is given up", reason=reason, error=message)
        # A model that may have been asked by a replica that died stays counted at its worst case.
        lost = (AttemptEnd(job.step, job.attempt, AttemptState.LOST, reason=reason),) if job.asked else ()
        await self._advance(job, SummaryChange(StepState.FAILED, result, is_over=True, attempts_ended=lost))
        return Outcome.FAILED

    async def _advance(self, job: Job, change: SummaryChange) -> None:
        """Commits a change, once. An acknowledgement that was lost is not retried blindly: the job tells what stands.

        Raises LostError, or what kept the database away for longer: then the job is put off, and goes on from there.
        """
        clock = asyncio.get_running_loop().time
        give_up, pause, uncertain = clock() + _PATIENCE, _FIRST_PAUSE, False
        while True:
            try:
                if uncertain and await self._stands(job, change):
                    return
                if not await self._store.advance(job, change):
                    raise LostError
                return
            except UNCERTAIN as fault:
                _log.warning("a change was not acknowledged", error=fault.message, reason=fault.reason)
                uncertain = True
                if clock() + pause > give_up:
                    raise
            await asyncio.sleep(pause)
            pause *= 2

    async def _stands(self, job: Job, change: SummaryChange) -> bool:
        """Whether a change was committed, by what the job is now."""
        now = await self._store.load(job.tenant_id, job.session_id)
        if now is None and change.is_over:
            return True
        if now is None or now.epoch != job.epoch:
            raise LostError
        if change.is_over:
            return False
        if change.goes_on:
            return now.step > job.step
        if change.result is not None:
            return now.result == change.result
        return now.asked and now.attempt == change.attempts_begun[0].attempt


def _result(plan: Plan, completion: Completion) -> SummaryResult:
    """Reads a model's answer. Raises Unavailable where it holds no summary."""
    was_cut = completion.finish_reason is FinishReason.LENGTH
    text = ended_whole(clean(completion.text), was_cut=was_cut)[:_LONGEST_TEXT]
    if not text:
        raise Unavailable("The model wrote no summary within its limit.", reason="PROVIDER_ANSWER_INVALID")
    usage = completion.usage
    return SummaryResult(
        text=text,
        first_sequence=plan.before.first_sequence,
        last_sequence=plan.last_sequence,
        more=plan.more,
        finish_reason=completion.finish_reason.value,
        model=completion.model,
        usage=TokenUsage(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens),
        cost_nanos=completion.cost_nanos,
        estimated=usage.estimated,
    )

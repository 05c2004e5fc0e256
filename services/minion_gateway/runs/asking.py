"""The llm step: the question, the answer as it comes, what it cost."""

from contextlib import aclosing
from functools import partial

from minion_errors import MinionError, Unavailable
from minion_grpc.wire import off_loop

from minion_gateway.inference.domain import Completion, CompletionRequest, Finished, TextDelta, Usage
from minion_gateway.inference.estimator import bound_request
from minion_gateway.inference.service import Inference
from minion_gateway.runs import audits, prompt
from minion_gateway.runs.changes import AttemptBegin, AttemptState, Charge
from minion_gateway.runs.cleaning import clean, requested
from minion_gateway.runs.domain import LlmResult, Step, StepState, TokenUsage
from minion_gateway.runs.happenings import TextAdded
from minion_gateway.runs.points import point
from minion_gateway.runs.timing import Part
from minion_gateway.runs.turn import Turn, now


class ModelFailedError(Exception):
    """The model did not answer. `was_cut`: it had begun to, and the same question may be asked again."""

    def __init__(self, error: MinionError, *, was_cut: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.was_cut = was_cut
        self.uncharged = error.metadata.get("charged") == "no"


class Asking:
    """Asks models for turns."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def attempt(self, turn: Turn, step: Step, number: int, bound: int | None = None) -> AttemptBegin:
        """Describes an attempt with the most that it can cost.

        The bound is the prompt's own where the prompt is known, else that of the agent's policies.
        """
        if bound is None:
            known = turn.context is not None
            bound = bound_request(self._request(turn, step)) if known else prompt.policy_bound(turn.agent)
        return self.first_attempt(turn.agent.model, step.sequence, number, bound, turn.agent.max_output_tokens)

    def first_attempt(self, model: str, step: int, number: int, bound: int, output: int) -> AttemptBegin:
        """Describes an attempt by its bounds."""
        full = self._inference.full_name(model)
        return AttemptBegin(
            step_sequence=step,
            attempt=number,
            model=full,
            worst_case_nanos=self._inference.price_bound(full, input_tokens=bound, output_tokens=output),
            maximum_input=bound,
            maximum_output=output,
        )

    def reserve(self, turn: Turn, step: Step) -> bool:
        """Stages the exact bound where the prompt passes what was reserved; True when it must be committed."""
        reserved = turn.reserved.get(step.sequence)
        exact = bound_request(self._request(turn, step))
        if reserved is not None and exact <= reserved:
            return False
        if reserved is None and exact <= prompt.policy_bound(turn.agent):
            return False
        turn.begin_attempt(self.attempt(turn, step, step.attempt, exact))
        return True

    async def ask(self, turn: Turn, step: Step) -> LlmResult:
        """Asks and returns the answer, told to the watchers as it comes. Raises ModelFailedError."""
        request = self._request(turn, step)
        turn.asked_at = now()
        with turn.time.waiting_for(Part.PROVIDER):
            completion = await self._answer(turn, step, request)
        asked_for = completion.tool_calls
        size = sum(len(call.arguments) for call in asked_for)
        return LlmResult(
            text=clean(completion.text),
            calls=await off_loop(partial(requested, step.sequence), asked_for, size),
            finish_reason=completion.finish_reason.value,
            model=completion.model,
            usage=tokens(completion.usage),
            cost_nanos=completion.cost_nanos,
            estimated=completion.usage.estimated,
        )

    async def _answer(self, turn: Turn, step: Step, request: CompletionRequest) -> Completion:
        shown = False
        try:
            if not turn.run.streamed:
                completion = await self._inference.complete(request)
                self._tell(turn, step, completion.text)
            else:
                finished: Completion | None = None
                async with aclosing(self._inference.stream(request)) as deltas:
                    async for delta in deltas:
                        match delta:
                            case TextDelta(text=text):
                                self._tell(turn, step, text)
                                if not shown:
                                    point("llm.answering")
                                shown = True
                            case Finished(completion=completion):
                                finished = completion
                if finished is None:
                    raise Unavailable("The model's answer has no end.", reason="PROVIDER_ANSWER_INVALID")
                completion = finished
        except MinionError as error:
            was_cut = error.reason in {"PROVIDER_ANSWER_INVALID", "PROVIDER_UNAVAILABLE"} and shown
            raise ModelFailedError(error, was_cut=was_cut) from error
        return completion

    def settle(self, turn: Turn, step: Step, result: LlmResult) -> None:
        """Stages the answer with its charge and its audit row."""
        turn.end_attempt(step, AttemptState.DONE, cost_nanos=result.cost_nanos)
        turn.charge(Charge(step.sequence, "llm", result.model, result.usage, result.cost_nanos))
        turn.audit(audits.model_answered(turn, step, result))
        turn.end(step, StepState.DONE, result)

    def _tell(self, turn: Turn, step: Step, text: str) -> None:
        if text:
            turn.tell(TextAdded(step.sequence, step.attempt, clean(text)))

    def _request(self, turn: Turn, step: Step) -> CompletionRequest:
        return prompt.request_of(
            turn.agent,
            turn.behaviour.tools(turn.agent),
            memories=turn.begun.memories if turn.begun else (),
            context=turn.context or (),
            steps=turn.steps,
            attempt=prompt.attempt_name(turn.run.run_id, step.sequence, step.attempt),
            summary=turn.summary,
        )


def tokens(usage: Usage) -> TokenUsage:
    """Converts a provider's count."""
    return TokenUsage(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)

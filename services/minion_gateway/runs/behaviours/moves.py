"""What a strategy can ask the engine to do next, and the face that all strategies have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from minion_gateway.agents.domain import BoundTool, ResolvedAgent
from minion_gateway.runs.domain import LlmResult, RequestedCall, Step, StepKind, StepState


@dataclass(frozen=True, slots=True)
class AskModel:
    """Ask the model, with all that was said and done so far."""


@dataclass(frozen=True, slots=True)
class CallTools:
    """Call these tools, then look again."""

    calls: tuple[RequestedCall, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the user, and end the turn."""

    text: str


Move = AskModel | CallTools | Answer


class Behaviour(Protocol):
    """Decides the next move from the steps that ended. It holds no state: any replica decides the same."""

    def tools(self, agent: ResolvedAgent) -> tuple[BoundTool, ...]:
        """Returns the tools that the model is offered."""

    def next(self, steps: Sequence[Step]) -> Move:
        """Returns the next move; `steps` are all of the run, in order, those of this move not among them."""


def last_step(steps: Sequence[Step]) -> Step | None:
    """Returns the last model or tool step that ended."""
    ended = (s for s in reversed(steps) if s.kind in {StepKind.LLM, StepKind.TOOL} and s.state is not StepState.STARTED)
    return next(ended, None)


def last_answer(steps: Sequence[Step]) -> LlmResult | None:
    """Returns what the model said last."""
    results = (step.result for step in reversed(steps) if isinstance(step.result, LlmResult))
    return next(results, None)

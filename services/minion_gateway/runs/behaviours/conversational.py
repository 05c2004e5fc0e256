"""`conversational`: one question, one answer, no tools."""

from collections.abc import Sequence

from minion_gateway.agents.domain import BoundTool, ResolvedAgent
from minion_gateway.runs.behaviours.moves import Answer, AskModel, Move, last_answer
from minion_gateway.runs.domain import Step


class Conversational:
    """Asks the model once and passes its answer on; tools that are bound all the same are not offered."""

    def tools(self, agent: ResolvedAgent) -> tuple[BoundTool, ...]:
        """Offers nothing."""
        del agent
        return ()

    def next(self, steps: Sequence[Step]) -> Move:
        """Asks, then answers."""
        answer = last_answer(steps)
        return AskModel() if answer is None else Answer(answer.text)

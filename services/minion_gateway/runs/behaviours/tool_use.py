"""`tool_use`: the model is asked, its tools are called, it is asked again, until it wants none."""

from collections.abc import Sequence

from minion_gateway.agents.domain import BoundTool, ResolvedAgent
from minion_gateway.runs.behaviours.moves import Answer, AskModel, CallTools, Move, last_step
from minion_gateway.runs.domain import LlmResult, Step


class ToolUse:
    """The loop that most agents want."""

    def tools(self, agent: ResolvedAgent) -> tuple[BoundTool, ...]:
        """Offers every tool that is bound."""
        return agent.tools

    def next(self, steps: Sequence[Step]) -> Move:
        """Calls what the model asked for; asks again after results; answers when it asked for nothing."""
        last = last_step(steps)
        if last is None or not isinstance(last.result, LlmResult):
            return AskModel()
        return CallTools(last.result.calls) if last.result.calls else Answer(last.result.text)

"""The strategies that drive an agent's steps, by the agent's `behavior_type`."""

from collections.abc import Mapping

from minion_errors import FailedPrecondition

from minion_gateway.runs.behaviours.conversational import Conversational
from minion_gateway.runs.behaviours.moves import Answer, AskModel, Behaviour, CallTools, Move
from minion_gateway.runs.behaviours.tool_use import ToolUse

BEHAVIOURS: Mapping[str, Behaviour] = {"conversational": Conversational(), "tool_use": ToolUse()}


def behaviour_of(behavior_type: str) -> Behaviour:
    """Returns the strategy of this name.

    Raises FailedPrecondition (AGENT_NOT_ACTIVE) for one that this release doesn't know: the registry refuses those, so
    it comes from a newer one.
    """
    try:
        return BEHAVIOURS[behavior_type]
    except KeyError:
        raise FailedPrecondition(
            "This gateway doesn't know the agent's behaviour type.",
            reason="AGENT_NOT_ACTIVE",
            metadata={"behavior_type": behavior_type},
        ) from None


__all__ = ["BEHAVIOURS", "Answer", "AskModel", "Behaviour", "CallTools", "Move", "behaviour_of"]

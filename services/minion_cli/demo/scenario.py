"""What happens in the demo: one user, one agent, two sessions, and what is left of them in every service."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion.gateway.v1 import inference_pb2, inference_service_pb2, run_pb2
from minion.registry.v1 import agent_pb2
from minion.session.v1 import session_service_pb2
from minion_errors import DeadlineExceeded, MinionError
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.chat import open_session, stream_turn
from minion_cli.connection import Services
from minion_cli.development.agents import AgentPlan, registered
from minion_cli.turn import Turn, TurnView

# The second session is a new one: what it knows of the user, it knows from memory alone.
SESSIONS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("Session 1: the user tells something", ("Hello! My name is Ada.", "I prefer tea over coffee.")),
    (
        "Session 2, a new one: does the agent know?",
        ("What is my name, and which drink do I prefer?", "What is 17 * 23, and what time is it?"),
    ),
)
AGENT: Final = AgentPlan(
    "tour",
    "Tour guide",
    "The agent of `minion demo`.",
    "You are a friendly assistant. Use the calculator for arithmetic and the clock for dates and times. When the user "
    "tells you something about themselves, keep it with the remember tool, one call for each thing. Use what you "
    "remember of the user in your answers. Answer in one or two sentences.",
)

_AUDIT_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.1
_LARGEST_PAGE: Final = 500


@dataclass(slots=True)
class Story:
    """All that the demo saw."""

    agent: agent_pb2.Agent
    model: inference_pb2.Model
    user: str
    session_ids: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    activities: list[activity_pb2.Activity] = field(default_factory=list)

    @property
    def runs(self) -> list[run_pb2.Run]:
        """The run of each turn."""
        return [turn.run for turn in self.turns]

    def cost_nanos(self) -> int | None:
        """What all runs cost; None where a price isn't known."""
        if any(not run.HasField("cost_nanos") for run in self.runs):
            return None
        return sum(run.cost_nanos for run in self.runs)

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Gives what `minion demo --json` prints."""
        fields = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
        return {
            "agent_id": self.agent.agent_id,
            "session_ids": self.session_ids,
            "run_ids": [run.run_id for run in self.runs],
            "answers": [turn.answer for turn in self.turns],
            "recalled": [
                {
                    "run_id": turn.run.run_id,
                    "memory_id": memory.memory_id,
                    "content": memory.content,
                    "score": round(memory.score, 4),
                }
                for turn in self.turns
                for memory in turn.recalled
            ],
            "tool_calls": [
                {"run_id": turn.run.run_id, "name": call.started.name, **_call_as_json(call.started, call.finished)}
                for turn in self.turns
                for call in turn.tool_calls
            ],
            "usage": {name: sum(getattr(run.usage, name) for run in self.runs) for name in fields},
            "cost_nanos": self.cost_nanos(),
            "activities": [output.as_dict(activity) for activity in self.activities],
            "seconds": round(seconds, 3),
        }


async def play(services: Services, view_of: "ViewOf") -> Story:
    """Registers the agent and holds the sessions; each turn is shown as it happens.

    Raises MinionError when a turn isn't answered, DeadlineExceeded when the audit doesn't follow.
    """
    agent = await registered(services, AGENT)
    # A user of its own each time: otherwise a second demo would recall what the first one stored.
    story = Story(agent, await _default_model(services), f"ada-{secrets.token_hex(3)}")
    view_of.begin(story)
    for title, texts in SESSIONS:
        session = await open_session(services, agent.agent_id, story.user, title)
        story.session_ids.append(session.session_id)
        view_of.session(title, session.session_id)
        for text in texts:
            view = view_of.turn(text)
            turn = await stream_turn(services, session.session_id, text, view)
            view.close(turn)
            if turn.run.state != run_pb2.RUN_STATE_COMPLETED:
                error = turn.run.error
                raise MinionError(error.message or "The turn was not answered.", reason=error.reason or "RUN_FAILED")
            story.turns.append(turn)
        request = session_service_pb2.CloseSessionRequest(session_id=session.session_id, request_id=str(uuid7()))
        await services.sessions.CloseSession(request)
    story.activities = await _audit(services, story)
    return story


class ViewOf:
    """What the demo shows while it plays; this one shows nothing."""

    def begin(self, story: Story) -> None:
        """Before the first session."""

    def session(self, title: str, session_id: str) -> None:
        """Before a session's first turn."""

    def turn(self, text: str) -> TurnView:
        """Before each turn: gives what shows its events."""
        del text
        return TurnView(output.console(), speaker="", quiet=True)


async def _default_model(services: Services) -> inference_pb2.Model:
    request = inference_service_pb2.ListModelsRequest(kind=inference_pb2.MODEL_KIND_CHAT)
    models = (await services.inference.ListModels(request)).models
    return next((model for model in models if model.default_model), inference_pb2.Model())


async def _audit(services: Services, story: Story) -> list[activity_pb2.Activity]:
    """Waits until the audit holds every run, model call and tool call: it follows the answers, it delays none."""
    deadline = time.monotonic() + _AUDIT_SECONDS
    calls = sum(len(turn.tool_calls) for turn in story.turns)
    while True:
        rows = [row for session_id in story.session_ids for row in await _rows(services, session_id)]
        runs = {row.run_id for row in rows if row.kind == activity_pb2.ACTIVITY_KIND_RUN}
        models = {row.run_id for row in rows if row.kind == activity_pb2.ACTIVITY_KIND_LLM_CALL}
        tools = sum(row.kind == activity_pb2.ACTIVITY_KIND_TOOL_CALL for row in rows)
        expected = {run.run_id for run in story.runs}
        if expected <= runs and expected <= models and tools >= calls:
            return rows
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                f"After {_AUDIT_SECONDS:.0f} s the audit holds {len(runs)} of {len(expected)} runs and {tools} of "
                f"{calls} tool calls.",
                reason="AUDIT_INCOMPLETE",
            )
        await asyncio.sleep(_LOOK_SECONDS)


async def _rows(services: Services, session_id: str) -> list[activity_pb2.Activity]:
    request = activity_service_pb2.ListActivitiesRequest(session_id=session_id, page_size=_LARGEST_PAGE)
    # Newest first on the wire; a story is told from its beginning.
    return list(reversed((await services.activities.ListActivities(request)).activities))


def _call_as_json(started: run_pb2.ToolCallStarted, finished: run_pb2.ToolCallFinished | None) -> dict[str, Any]:
    return {
        "arguments": output.plain(started.arguments),
        "output": output.plain(finished.output) if finished is not None else None,
        "is_error": finished.is_error if finished is not None else None,
    }

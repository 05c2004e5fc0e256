"""Shows a turn as it happens: what was recalled, which tools were called, the answer word by word, what it cost."""

from collections.abc import AsyncIterable
from dataclasses import dataclass, field

from minion.gateway.v1 import run_pb2
from minion.session.v1 import session_pb2
from minion_errors import Unavailable
from rich.console import Console
from rich.text import Text

from minion_cli import output

_LONGEST_VALUE = 200


@dataclass(slots=True)
class Turn:
    """What became known of one run while its events came."""

    run: run_pb2.Run = field(default_factory=run_pb2.Run)
    recalled: list[run_pb2.RecalledMemory] = field(default_factory=list)
    summary: run_pb2.SummaryUsed | None = None
    tool_calls: list["ToolCall"] = field(default_factory=list)
    answer: str = ""


@dataclass(slots=True)
class ToolCall:
    """One call of a tool: how it began, and how it ended once it did."""

    started: run_pb2.ToolCallStarted
    finished: run_pb2.ToolCallFinished | None = None


class TurnView:
    """Writes a run's events to a console for people; with `quiet` it only keeps what they say."""

    def __init__(self, console: Console, *, speaker: str, quiet: bool = False) -> None:
        self._console = console
        self._speaker = speaker
        self._quiet = quiet
        self._within_text = False

    async def follow(self, events: AsyncIterable[run_pb2.RunEvent]) -> Turn:
        """Shows events until the run's end and returns what they said.

        Raises Unavailable when the stream ends before the run does.
        """
        turn = Turn()
        try:
            async for event in events:
                self._take(event, turn)
        finally:
            self._end_text()
        if not turn.run.run_id:
            raise Unavailable("The stream ended before the run did; `minion runs watch` goes on.", reason="STREAM_CUT")
        if not turn.answer:
            turn.answer = turn.run.answer
        return turn

    def close(self, turn: Turn) -> None:
        """Writes how the turn ended: tokens, cost, the run's id, and why it has no answer where it has none."""
        run = turn.run
        if run.state != run_pb2.RUN_STATE_COMPLETED:
            state = output.enum_text(run_pb2.RunState, run.state)
            self._note(f"✗ {state}: {run.error.reason}: {run.error.message}", "red")
        self._note(summary(run))

    def tell_summary(self, made: session_pb2.Summary) -> None:
        """Writes that the session was summarized after an earlier turn."""
        covered = messages(made.first_sequence, made.last_sequence)
        by = f" by {made.model}" if made.model else ""
        self._note(f"summary   {covered} summarized{by}, {made.token_count} tokens", "cyan")

    def _take(self, event: run_pb2.RunEvent, turn: Turn) -> None:
        match event.WhichOneof("event"):
            case "memories_recalled":
                turn.recalled.extend(event.memories_recalled.memories)
                for memory in event.memories_recalled.memories:
                    self._note(f"recalled  {output.one_line(memory.content)}  ({memory.score:.2f})", "cyan")
            case "summary_used":
                used = event.summary_used
                turn.summary = used
                covered = messages(used.first_sequence, used.last_sequence)
                self._note(f"summary   {covered} stand as {used.token_count} tokens", "cyan")
            case "text_delta":
                self._text(event.text_delta.text, turn)
            case "tool_call_started":
                turn.tool_calls.append(ToolCall(event.tool_call_started))
                started = event.tool_call_started
                # Text before a call was the model thinking aloud: the answer is what follows the last one.
                self._end_text()
                turn.answer = ""
                self._note(f"calls     {started.name}({_short(output.as_json(started.arguments))})", "yellow")
            case "tool_call_finished":
                finished = event.tool_call_finished
                for call in turn.tool_calls:
                    if call.started.tool_call_id == finished.tool_call_id:
                        call.finished = finished
                mark = "failed " if finished.is_error else "returns"
                took = output.duration_text(finished.duration)
                blob = f"  (all of it: blob {finished.blob_id})" if finished.blob_id else ""
                shown = _short(output.as_json(finished.output))
                self._note(f"{mark}   {finished.name}: {shown}{blob}  ({took})", "yellow")
            case "attempt_superseded":
                turn.answer = ""
                self._end_text()
                self._note("the model is asked again; what it said before is void", "red")
            case "run_finished":
                turn.run = event.run_finished.run
            case _:
                pass

    def _text(self, text: str, turn: Turn) -> None:
        turn.answer += text
        if self._quiet:
            return
        if not self._within_text:
            self._console.print(Text(f"{self._speaker}  ", "bold green"), end="")
            self._within_text = True
        self._console.print(Text(text), end="", soft_wrap=True)
        self._console.file.flush()

    def _end_text(self) -> None:
        if self._within_text:
            self._console.print()
        self._within_text = False

    def _note(self, text: str, style: str = "dim") -> None:
        if not self._quiet:
            self._end_text()
            self._console.print(Text(f"  {text}", style), soft_wrap=True)


def messages(first: int, last: int) -> str:
    """Names a stretch of messages."""
    return f"messages {first} to {last}" if last > first else f"message {last}"


def summary(run: run_pb2.Run) -> str:
    """Writes what a run took: tokens, cost, time, id."""
    usage = run.usage
    parts = [f"{usage.input_tokens} tokens in, {usage.output_tokens} out", f"cost {output.cost_text(run)}"]
    if run.HasField("end_time"):
        parts.append(f"{run.end_time.ToMilliseconds() - run.create_time.ToMilliseconds()} ms")
    parts.append(f"run {run.run_id}")
    return " · ".join(parts)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"

"""How the demo looks: while it plays, and what is left when it is over."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from rich.console import Console
from rich.text import Text

from minion_cli import output
from minion_cli.activities import COLUMNS
from minion_cli.demo import trace
from minion_cli.demo.scenario import Story, ViewOf
from minion_cli.development.directory import DEFAULT, Directory
from minion_cli.output import Format
from minion_cli.turn import TurnView, summary

_NAME_WIDTH: Final = 58
# The audit's table, without the columns that say the same in every row here.
_AUDIT_COLUMNS: Final = tuple(column for column in COLUMNS if column.title not in {"RUN ID", "ACTIVITY ID"})


class Stage(ViewOf):
    """Shows the demo to a person while it plays."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, story: Story) -> None:
        """Says who talks, with which agent, and which model answers."""
        agent, model = story.agent, story.model
        self._line(f"agent {agent.name} (revision {agent.revision}, {agent.behavior_type}) · user {story.user}")
        if model.stand_in:
            self._line(
                f"model {model.name}: a stand-in that follows rules and understands nothing, because no provider is "
                "set. With OPENAI_API_KEY (and OPENAI_BASE_URL) a real model answers."
            )
        else:
            self._line(f"model {model.name}")

    def session(self, title: str, session_id: str) -> None:
        """Opens a chapter."""
        heading(self._console, title)
        self._line(f"session {session_id}")

    def turn(self, text: str) -> TurnView:
        """Says what the user says."""
        self._console.print()
        self._console.print(Text("you   ", "bold").append(Text(text, "default")), soft_wrap=True)
        return TurnView(self._console, speaker="tour")

    def _line(self, text: str) -> None:
        self._console.print(Text(f"  {text}", "dim"), soft_wrap=True)


def heading(console: Console, title: str) -> None:
    """Begins a section."""
    console.print()
    console.print(Text(f"━━ {title}", "bold"))


def conclusion(console: Console, story: Story, spans: Sequence[ReadableSpan], directory: Directory) -> None:
    """Writes what the demo left: memories, a trace, the bill, the audit, and how to see it again."""
    _memories(console, story)
    _trace(console, story, spans)
    _bill(console, story)
    heading(console, f"The audit: {len(story.activities)} rows, written by the gateway's outbox")
    output.show_list(story.activities, _AUDIT_COLUMNS, Format.TABLE)
    _again(console, story, directory)


def _memories(console: Console, story: Story) -> None:
    heading(console, "Recalled in session 2, from what was said in session 1")
    seen = set()
    for turn in story.turns:
        for memory in turn.recalled:
            if turn.run.session_id == story.session_ids[-1] and memory.memory_id not in seen:
                seen.add(memory.memory_id)
                line = f"{memory.score:5.2f}  {output.one_line(memory.content)}  ({memory.memory_id})"
                console.print(line, soft_wrap=True)
    if not seen:
        console.print("(nothing: the model kept nothing with its remember tool, or nothing that fits the questions)")


def _trace(console: Console, story: Story, spans: Sequence[ReadableSpan]) -> None:
    # The turn that asked the most of the services; the later ones find much in caches.
    through = [trace.services(spans, run.trace_id) for run in story.runs]
    number = max(range(len(through)), key=lambda index: len(through[index]))
    run, crossed = story.runs[number], [name for name in through[number] if name != "cli"]
    heading(console, f"Turn {number + 1} as one trace, through {', '.join(crossed)}")
    console.print(Text(f"trace {run.trace_id}", "dim"))
    console.print(Text(f"{'service':<9} {'start ms':>8} {'took ms':>8}  span", "bold"))
    for branch in trace.tree(spans, run.trace_id):
        line = Text(f"{branch.service:<9} {branch.start:>8.1f} {branch.took:>8.1f}  ")
        line.append(branch.guide, "dim").append(branch.name)
        if branch.detail:
            line.append(f"  ({branch.detail})", "dim")
        console.print(line, soft_wrap=True)


def _bill(console: Console, story: Story) -> None:
    heading(console, "Tokens and cost")
    for run in story.runs:
        console.print(summary(run), soft_wrap=True)
    total = story.cost_nanos()
    tokens_in = sum(run.usage.input_tokens for run in story.runs)
    tokens_out = sum(run.usage.output_tokens for run in story.runs)
    cost = "unknown" if total is None else output.dollars(total)
    console.print(Text(f"{tokens_in} tokens in, {tokens_out} out · cost {cost} · in all", "bold"), soft_wrap=True)


def _again(console: Console, story: Story, directory: Directory) -> None:
    heading(console, "See it again: the data is kept")
    minion = program()
    where = "" if directory.path == DEFAULT.absolute() else f" --directory {_shown(directory.path)}"
    run = story.runs[-1]
    calls = [
        ("50050", "minion.gateway.v1.RunService/GetRun", f'{{"run_id": "{run.run_id}"}}'),
        ("50050", "minion.gateway.v1.RunService/WatchRun", f'{{"run_id": "{run.run_id}"}}'),
        ("50051", "minion.registry.v1.AgentService/ResolveAgent", f'{{"agent_id": "{story.agent.agent_id}"}}'),
        ("50052", "minion.session.v1.SessionService/ListMessages", f'{{"session_id": "{story.session_ids[0]}"}}'),
        (
            "50053",
            "minion.memory.v1.MemoryService/SearchMemories",
            f'{{"agent_id": "{story.agent.agent_id}", "user_id": "{story.user}", "query": "drinks"}}',
        ),
        ("50054", "minion.activity.v1.ActivityService/ListActivities", f'{{"run_id": "{run.run_id}"}}'),
    ]
    lines = [
        f"{minion} dev{where} &",
        f"export MINION_API_KEY=$({minion} keys show{where})",
        *(
            f"grpcurl -plaintext -H \"authorization: Bearer $MINION_API_KEY\" -d '{body}' localhost:{port} {method}"
            for port, method, body in calls
        ),
        f"{minion} chat {story.agent.name} --user {story.user}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


def program() -> str:
    """Names this command as the user can type it: `minion` where it is found, else the path that it was called by."""
    called = Path(sys.argv[0])
    if called.name != "minion":
        return f"{_shown(Path(sys.executable))} -m minion_cli"
    found = shutil.which("minion")
    return "minion" if found is not None and Path(found).resolve() == called.resolve() else _shown(called.absolute())


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

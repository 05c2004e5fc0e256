"""`minion runs`: the turns of agents."""

from collections.abc import AsyncIterator
from typing import Annotated

import typer
from minion.gateway.v1 import run_pb2, run_service_pb2, run_step_pb2
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take
from minion_cli.turn import TurnView

app = group("Runs: the turns of agents.")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]

_COLUMNS = (
    Column("RUN ID", lambda run: run.run_id),
    Column("STATE", lambda run: output.enum_text(run_pb2.RunState, run.state)),
    Column("USER", lambda run: run.user_id),
    Column("STEPS", lambda run: str(run.step_count), right=True),
    Column("IN", lambda run: str(run.usage.input_tokens), right=True),
    Column("OUT", lambda run: str(run.usage.output_tokens), right=True),
    Column("COST", output.cost_text, right=True),
    Column("CREATED (UTC)", lambda run: output.time_text(run.create_time)),
    Column("SESSION ID", lambda run: run.session_id),
    Column("ANSWER", lambda run: run.answer or run.error.reason, wide=True),
)


def _note(step: run_step_pb2.RunStep) -> str:
    """Says what else is known of a step."""
    if step.error_reason:
        return step.error_reason
    if step.summarized_up_to:
        return f"messages up to {step.summarized_up_to}"
    return f"blob {step.blob_id}" if step.blob_id else ""


_STEP_COLUMNS = (
    Column("STEP", lambda step: str(step.sequence), right=True),
    Column("KIND", lambda step: output.enum_text(run_step_pb2.RunStepKind, step.kind)),
    Column("STATE", lambda step: output.enum_text(run_step_pb2.RunStepState, step.state)),
    Column("ATTEMPT", lambda step: str(step.attempt), right=True),
    Column("NAME", lambda step: step.name),
    Column("IN", lambda step: str(step.usage.input_tokens or ""), right=True),
    Column("OUT", lambda step: str(step.usage.output_tokens or ""), right=True),
    Column("COST", lambda step: output.cost_text(step) if step.HasField("usage") else "", right=True),
    Column("STARTED (UTC)", lambda step: output.time_text(step.start_time)),
    Column("NOTE", _note, wide=True),
)


@app.command("list")
def list_(
    session: Annotated[str, typer.Option(help="Only runs in this session.")] = "",
    agent: Annotated[str, typer.Option(help="Only runs of this agent, by name or id.")] = "",
    state: Annotated[
        str | None, typer.Option(help="Only these: submitted, working, input_required, completed or failed.")
    ] = None,
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List runs, newest first."""
    wanted = output.enum_value(run_pb2.RunState, state, "--state")

    async def work(services: Services) -> list[run_pb2.Run]:
        agent_id = (await find_agent(services, agent)).agent_id if agent else ""
        request = run_service_pb2.ListRunsRequest(session_id=session, agent_id=agent_id, state=wanted)
        return await take(services.runs.ListRuns, request, "runs", run_pb2.Run, limit)

    output.show_list(call(work), _COLUMNS, form)


@app.command()
def get(run: RunArgument, form: FormatOption = Format.TABLE) -> None:
    """Show a run."""

    async def work(services: Services) -> run_pb2.Run:
        return (await services.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run))).run

    output.show_one(call(work), form)


@app.command()
def steps(run: RunArgument, limit: LimitOption = 100, form: FormatOption = Format.TABLE) -> None:
    """List the steps of a run, a summary made after it among them."""

    async def work(services: Services) -> list[run_step_pb2.RunStep]:
        request = run_service_pb2.ListRunStepsRequest(run_id=run)
        return await take(services.runs.ListRunSteps, request, "steps", run_step_pb2.RunStep, limit)

    output.show_list(call(work), _STEP_COLUMNS, form)


@app.command()
def watch(
    run: RunArgument,
    after: Annotated[int, typer.Option(help="Only events after this sequence.", min=0)] = 0,
) -> None:
    """Show a run's events from the first to its end; a run that ended is shown again."""

    async def work(services: Services) -> bool:
        request = run_service_pb2.WatchRunRequest(run_id=run, after_sequence=after)
        stream = services.runs.WatchRun(request)

        async def events() -> AsyncIterator[run_pb2.RunEvent]:
            async for response in stream:
                yield response.event

        view = TurnView(output.console(), speaker="agent")
        turn = await view.follow(events())
        view.close(turn)
        return turn.run.state == run_pb2.RUN_STATE_COMPLETED

    if not call(work):
        raise typer.Exit(1)


@app.command()
def start(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session; it names the agent and the user.")],
    text: Annotated[str, typer.Argument(help="What the user says.")],
    enqueue: Annotated[bool, typer.Option("--enqueue", help="Wait behind the session's active run.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Run one turn and wait for its end."""
    policy = run_pb2.BUSY_POLICY_ENQUEUE if enqueue else run_pb2.BUSY_POLICY_REJECT

    async def work(services: Services) -> run_pb2.Run:
        request = run_service_pb2.CreateRunRequest(
            session_id=session, text=text, busy_policy=policy, request_id=str(uuid7())
        )
        return (await services.runs.CreateRun(request)).run

    run = call(work)
    output.show_one(run, form)
    if run.state != run_pb2.RUN_STATE_COMPLETED:
        raise typer.Exit(1)

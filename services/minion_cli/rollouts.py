"""`minion rollouts`: new revisions of agents, a share of the sessions first."""

import re
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import rollout_pb2, rollout_service_pb2
from minion_errors import NotFound
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.agent_tools import AgentArgument
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent, is_id
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

app = group("Rollouts: new revisions of agents, a share of the sessions first.")

RolloutArgument = Annotated[
    str, typer.Argument(metavar="ROLLOUT", help="The rollout's id, or its agent's name for the agent's newest.")
]

_POINTS_A_PERCENT = 100
_NANOS_A_DOLLAR = 1_000_000_000
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
# What holds where no limit is given: a rollout without one is refused.
_ERROR_RATE = 0.05

EtagOption = Annotated[str, typer.Option("--etag", help="Only if the rollout is still as it was read with this etag.")]

_COLUMNS = (
    Column("ROLLOUT ID", lambda rollout: rollout.rollout_id),
    Column("AGENT ID", lambda rollout: rollout.agent_id),
    Column("STATUS", lambda rollout: output.enum_text(rollout_pb2.RolloutStatus, rollout.status)),
    Column("CANDIDATE", lambda rollout: str(rollout.candidate_revision), right=True),
    Column("BASELINE", lambda rollout: str(rollout.baseline_revision), right=True),
    Column("STEP", lambda rollout: f"{rollout.step_index + 1} of {len(rollout.steps)}", right=True),
    Column("SHARE", lambda rollout: percent_text(rollout.basis_points), right=True),
    Column("RUNS", lambda rollout: str(rollout.last_check.candidate.run_count), right=True),
    Column("FAILED", lambda rollout: f"{rollout.last_check.candidate.error_rate:.2%}", right=True),
    Column("STARTED (UTC)", lambda rollout: output.time_text(rollout.create_time)),
    Column("WHY", lambda rollout: rollout.abort_reason, wide=True),
)


@app.command()
def start(
    agent: AgentArgument,
    revision: Annotated[int, typer.Option(help="The candidate: a revision that isn't live.", min=1)],
    percent: Annotated[str, typer.Option(help="The share of the sessions, as one step that waits for you.")] = "",
    steps: Annotated[
        str, typer.Option(help="Shares one after the other, each with how long it lasts at least: 10:1h,50:1h,100.")
    ] = "",
    min_runs: Annotated[int, typer.Option(help="Runs of the candidate by which it is judged; 0 means 20.")] = 0,
    max_error_rate: Annotated[
        float | None, typer.Option(help="The largest share of runs that may fail; 0.05 where no limit is given.")
    ] = None,
    max_p95: Annotated[str, typer.Option(help="The largest 95th percentile of a run's duration, such as 2s.")] = "",
    max_mean_cost: Annotated[
        float | None, typer.Option(help="The largest mean cost of a run, in US dollars.", min=0)
    ] = None,
    no_evidence: Annotated[
        bool,
        typer.Option(
            "--no-evidence", help="Ask for no evaluation before a promotion, which this release has none of; audited."
        ),
    ] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Give a candidate revision a share of an agent's sessions; a broken limit takes it back by itself."""
    if bool(percent) == bool(steps):
        raise typer.BadParameter("Give either --percent or --steps.", param_hint="--steps")
    limits = rollout_pb2.RolloutGuardrails(min_runs=min_runs, max_error_rate=max_error_rate)
    if max_p95:
        limits.max_p95_duration.CopyFrom(_span(max_p95, "--max-p95"))
    if max_mean_cost is not None:
        limits.max_mean_cost_nanos = round(max_mean_cost * _NANOS_A_DOLLAR)
    if max_error_rate is None and not max_p95 and max_mean_cost is None:
        limits.max_error_rate = _ERROR_RATE
    evidence = rollout_pb2.ROLLOUT_EVIDENCE_NONE if no_evidence else rollout_pb2.ROLLOUT_EVIDENCE_EVALUATION
    wanted = steps_of(steps) if steps else [rollout_pb2.RolloutStep(basis_points=_points(percent, "--percent"))]

    async def work(services: Services) -> rollout_pb2.Rollout:
        rollout = rollout_pb2.Rollout(
            agent_id=(await find_agent(services, agent)).agent_id,
            candidate_revision=revision,
            steps=wanted,
            guardrails=limits,
            evidence=evidence,
        )
        request = rollout_service_pb2.StartRolloutRequest(rollout=rollout, request_id=str(uuid7()))
        return (await services.rollouts.StartRollout(request)).rollout

    output.show_one(call(work), form)


@app.command()
def show(rollout: RolloutArgument, form: FormatOption = Format.TABLE) -> None:
    """Show a rollout, with the figures that it was last judged by."""

    async def work(services: Services) -> rollout_pb2.Rollout:
        return await _find(services, rollout)

    output.show_one(call(work), form)


@app.command("list")
def list_(
    agent: Annotated[str, typer.Option(help="Only rollouts of this agent, by name or id.")] = "",
    status: Annotated[str | None, typer.Option(help="Only these: running, promoted or aborted.")] = None,
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List rollouts, newest first."""
    wanted = output.enum_value(rollout_pb2.RolloutStatus, status, "--status")

    async def work(services: Services) -> list[rollout_pb2.Rollout]:
        agent_id = (await find_agent(services, agent)).agent_id if agent else ""
        request = rollout_service_pb2.ListRolloutsRequest(agent_id=agent_id, status=wanted)
        return await take(services.rollouts.ListRollouts, request, "rollouts", rollout_pb2.Rollout, limit)

    output.show_list(call(work), _COLUMNS, form)


@app.command()
def advance(
    rollout: RolloutArgument,
    step: Annotated[int | None, typer.Option(help="The step to go to, from 1; the next one unless given.")] = None,
    etag: EtagOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Move a rollout to its next step, or to a later one."""

    async def work(services: Services) -> rollout_pb2.Rollout:
        request = rollout_service_pb2.AdvanceRolloutRequest(
            rollout_id=await _id(services, rollout),
            step_index=None if step is None else step - 1,
            etag=etag,
            request_id=str(uuid7()),
        )
        return (await services.rollouts.AdvanceRollout(request)).rollout

    output.show_one(call(work), form)


@app.command()
def promote(rollout: RolloutArgument, etag: EtagOption = "", form: FormatOption = Format.TABLE) -> None:
    """Make the candidate the live revision; it needs a passing evaluation, unless started with --no-evidence.

    The activity service of this release keeps no evaluations: what was started without --no-evidence can't be promoted.
    """

    async def work(services: Services) -> rollout_pb2.Rollout:
        request = rollout_service_pb2.PromoteRolloutRequest(
            rollout_id=await _id(services, rollout), etag=etag, request_id=str(uuid7())
        )
        return (await services.rollouts.PromoteRollout(request)).rollout

    output.show_one(call(work), form)


@app.command()
def abort(
    rollout: RolloutArgument,
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    etag: EtagOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Give all sessions back to the live revision, from their next turn on."""

    async def work(services: Services) -> rollout_pb2.Rollout:
        request = rollout_service_pb2.AbortRolloutRequest(
            rollout_id=await _id(services, rollout), reason=reason, etag=etag, request_id=str(uuid7())
        )
        return (await services.rollouts.AbortRollout(request)).rollout

    output.show_one(call(work), form)


def steps_of(text: str) -> list[rollout_pb2.RolloutStep]:
    """Reads steps such as `10:1h,50:1h,100`: percents, each with the time after which the next begins by itself."""
    steps = []
    for part in text.split(","):
        share, colon, span = part.strip().partition(":")
        duration = _span(span, "--steps") if colon else None
        steps.append(rollout_pb2.RolloutStep(basis_points=_points(share, "--steps"), duration=duration))
    return steps


def percent_text(basis_points: int) -> str:
    """Writes hundredths of a percent as percent, with the decimals that it has."""
    return f"{Decimal(basis_points) / _POINTS_A_PERCENT:f}%"


async def _find(services: Services, id_or_agent: str) -> rollout_pb2.Rollout:
    if is_id(id_or_agent):
        request = rollout_service_pb2.GetRolloutRequest(rollout_id=id_or_agent)
        return (await services.rollouts.GetRollout(request)).rollout
    agent = await find_agent(services, id_or_agent)
    newest = rollout_service_pb2.ListRolloutsRequest(agent_id=agent.agent_id, page_size=1)
    listed = (await services.rollouts.ListRollouts(newest)).rollouts
    if not listed:
        raise NotFound(f"The agent {agent.name} has no rollout.", reason="ROLLOUT_NOT_FOUND")
    return listed[0]


async def _id(services: Services, id_or_agent: str) -> str:
    return id_or_agent if is_id(id_or_agent) else (await _find(services, id_or_agent)).rollout_id


def _points(text: str, option: str) -> int:
    try:
        points = Decimal(text.strip().removesuffix("%")) * _POINTS_A_PERCENT
    except InvalidOperation:
        points = Decimal(0)
    if not (points.is_finite() and points == points.to_integral_value() and 1 <= points <= 100 * _POINTS_A_PERCENT):
        raise typer.BadParameter(f"{text!r} is no share from 0.01 to 100 percent.", param_hint=option)
    return int(points)


def _span(text: str, option: str) -> Duration:
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time such as 500ms, 30s, 15m, 1h or 2d.", param_hint=option)
    number, unit = float(match[1]), match[2]
    span = timedelta(milliseconds=number) if unit == "ms" else timedelta(**{_UNITS[unit]: number})
    duration = Duration()
    duration.FromTimedelta(span)
    return duration

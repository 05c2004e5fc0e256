"""`minion activities`: the audit, and the figures that come of it."""

from typing import Annotated

import typer
from minion.activity.v1 import activity_pb2, activity_service_pb2

from minion_cli import output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

app = group("Activities: the audit, and the figures that come of it.")

COLUMNS = (
    Column("TIME (UTC)", lambda activity: output.time_text(activity.start_time)),
    Column("KIND", lambda activity: output.enum_text(activity_pb2.ActivityKind, activity.kind)),
    Column("NAME", lambda activity: activity.name),
    Column("STATUS", lambda activity: output.enum_text(activity_pb2.ActivityStatus, activity.status)),
    Column("TOOK", lambda activity: output.duration_text(activity.duration), right=True),
    Column("IN", lambda activity: str(activity.usage.input_tokens or ""), right=True),
    Column("OUT", lambda activity: str(activity.usage.output_tokens or ""), right=True),
    Column("COST", output.cost_text, right=True),
    Column("BY", lambda activity: activity.principal),
    Column("RUN ID", lambda activity: activity.run_id),
    Column("ACTIVITY ID", lambda activity: activity.activity_id),
)
_STATS_COLUMNS = (
    Column("REVISION", lambda stats: str(stats.agent_revision or "all"), right=True),
    Column("RUNS", lambda stats: str(stats.run_count), right=True),
    Column("SUCCEEDED", lambda stats: str(stats.succeeded_count), right=True),
    Column("FAILED", lambda stats: str(stats.failed_count), right=True),
    Column("TOOL CALLS", lambda stats: str(stats.tool_call_count), right=True),
    Column("LLM CALLS", lambda stats: str(stats.llm_call_count), right=True),
    Column("IN", lambda stats: str(stats.usage.input_tokens), right=True),
    Column("OUT", lambda stats: str(stats.usage.output_tokens), right=True),
    Column("COST", lambda stats: output.dollars(stats.cost_nanos), right=True),
    Column("UNPRICED", lambda stats: str(stats.unpriced_run_count), right=True),
    Column("P50", lambda stats: output.duration_text(stats.p50_duration), right=True),
    Column("P95", lambda stats: output.duration_text(stats.p95_duration), right=True),
)


@app.command("list")
def list_(
    agent: Annotated[str, typer.Option(help="Only activities of this agent, by name or id.")] = "",
    session: Annotated[str, typer.Option(help="Only activities in this session.")] = "",
    run: Annotated[str, typer.Option(help="Only activities of this run.")] = "",
    kind: Annotated[
        str | None, typer.Option(help="Only this kind: run, llm_call, tool_call, inference, custom or administration.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="Only what succeeded, failed, or is canceled or unknown.")] = None,
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List activities, newest first."""
    wanted_kind = output.enum_value(activity_pb2.ActivityKind, kind, "--kind")
    wanted_status = output.enum_value(activity_pb2.ActivityStatus, status, "--status")

    async def work(services: Services) -> list[activity_pb2.Activity]:
        request = activity_service_pb2.ListActivitiesRequest(
            agent_id=(await find_agent(services, agent)).agent_id if agent else "",
            session_id=session,
            run_id=run,
            kind=wanted_kind,
            status=wanted_status,
        )
        return await take(services.activities.ListActivities, request, "activities", activity_pb2.Activity, limit)

    output.show_list(call(work), COLUMNS, form)


@app.command()
def get(
    activity: Annotated[str, typer.Argument(metavar="ACTIVITY", help="The activity's id.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Show an activity."""

    async def work(services: Services) -> activity_pb2.Activity:
        request = activity_service_pb2.GetActivityRequest(activity_id=activity)
        return (await services.activities.GetActivity(request)).activity

    output.show_one(call(work), form)


@app.command()
def stats(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name or id.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Sum up what an agent did: over all, then for each revision."""

    async def work(services: Services) -> activity_service_pb2.GetAgentStatsResponse:
        agent_id = (await find_agent(services, agent)).agent_id
        return await services.activities.GetAgentStats(activity_service_pb2.GetAgentStatsRequest(agent_id=agent_id))

    response = call(work)
    if form is Format.TABLE:
        output.show_list([response.stats, *response.revisions], _STATS_COLUMNS, form)
    else:
        output.show_one(response, form)

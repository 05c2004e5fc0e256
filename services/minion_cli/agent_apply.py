"""`minion agents apply` and `export`: agents that live in git; `minion_cli.agents` registers them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from minion.registry.v1 import agent_pb2, agent_service_pb2

from minion_cli import agent_files, agent_plan, output
from minion_cli.agent_plan import Plan
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent
from minion_cli.output import Format, FormatOption
from minion_cli.paging import take

_MOST_TOOLS = 128


def register(app: typer.Typer) -> None:
    """Adds the commands to the group."""
    app.command()(apply)
    app.command()(export)


def apply(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="YAML of agents and tools; - is standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run: exit with 1 when something would change.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    stage: Annotated[bool, typer.Option("--stage", help="Keep changes of agents for a rollout.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Make agents and tools as files describe them; show what changes first."""
    documents = agent_files.read(file)
    if exit_code and not dry_run:
        raise typer.BadParameter("is for --dry-run.", param_hint="--exit-code")
    plan = call(lambda services: agent_plan.make(services, documents, stage=stage))
    _show(plan, form)
    if dry_run or not plan.changes_anything:
        raise typer.Exit(1 if exit_code and plan.changes_anything else 0)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("is needed where nobody can be asked.", param_hint="--yes")
        typer.confirm("Apply?", abort=True, err=True)
    call(lambda services: agent_plan.carry_out(services, plan, stage=stage))


def export(
    agent: Annotated[list[str], typer.Argument(metavar="AGENT...", help="Names or ids of agents.")],
    tools: Annotated[bool, typer.Option("--tools", help="Write the tools that they have, too.")] = False,
) -> None:
    """Write agents as the YAML that apply reads."""

    async def work(services: Services) -> list[dict[str, Any]]:
        agents: list[dict[str, Any]] = []
        bound: dict[str, dict[str, Any]] = {}
        for name in agent:
            found = await find_agent(services, name)
            request = agent_service_pb2.ListAgentToolsRequest(agent_id=found.agent_id)
            listed = await take(
                services.agents.ListAgentTools, request, "agent_tools", agent_pb2.AgentTool, _MOST_TOOLS
            )
            agents.append(agent_files.agent_document(found, listed))
            bound.update({each.tool.name: agent_files.tool_document(each.tool) for each in listed if tools})
        return [*bound.values(), *agents]

    print(agent_files.write(call(work)), end="")


def _show(plan: Plan, form: Format) -> None:
    if form is not Format.TABLE:
        output.dump([part.summary() for part in plan.parts], form)
        return
    for part in plan.parts:
        told = part.summary()
        print(f"{told['kind'].lower()} {told['name']}: {told['action']}")
        for change in part.changes:
            for line in change.lines():
                print(f"  {line}")

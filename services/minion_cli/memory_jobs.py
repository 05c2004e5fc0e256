"""What `minion memories` draws from sessions and puts in order; `minion_cli.memories` registers it."""

from typing import Annotated

import typer
from minion.memory.v1 import consolidation_pb2, extraction_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

_RESULT_COLUMNS = (
    Column("OUTCOME", lambda result: output.enum_text(extraction_pb2.ExtractionOutcome, result.outcome)),
    Column("KEY", lambda result: result.memory.key),
    Column("CONTENT", lambda result: result.memory.content, wide=True),
    Column("QUOTE", lambda result: result.memory.source.quote, wide=True),
    Column("WHY", lambda result: result.reason),
)
_JOB_COLUMNS = (
    Column("STATE", lambda job: output.enum_text(extraction_pb2.ExtractionState, job.state)),
    Column("EXTRACTOR", lambda job: job.extractor),
    Column("TRIGGER", lambda job: output.enum_text(extraction_pb2.ExtractionTrigger, job.trigger)),
    Column("MESSAGES", lambda job: f"{job.first_sequence}-{job.last_sequence}"),
    Column("NEW", lambda job: str(job.created_count), right=True),
    Column("CHANGED", lambda job: str(job.updated_count), right=True),
    Column("ENDED", lambda job: str(job.deleted_count), right=True),
    Column("KNOWN", lambda job: str(job.unchanged_count), right=True),
    Column("REFUSED", lambda job: str(job.refused_count), right=True),
    Column("TRIES", lambda job: str(job.attempt_count), right=True),
    Column("UPDATED (UTC)", lambda job: output.time_text(job.update_time)),
    Column("JOB ID", lambda job: job.job_id),
    Column("ERROR", lambda job: job.error),
)
_ACTION_COLUMNS = (
    Column("DOES", lambda action: output.enum_text(consolidation_pb2.ConsolidationKind, action.kind)),
    Column("WITH", lambda action: " ".join(action.memory_ids), wide=True),
    Column("KEEPS", lambda action: action.kept_memory_id),
    Column("WHY", lambda action: action.reason, wide=True),
)


def register(app: typer.Typer) -> None:
    """Adds the commands to the group."""
    for command in (extract, jobs, consolidate):
        app.command()(command)
    app.command("retry-job")(retry_job)


def extract(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")],
    extractor: Annotated[str, typer.Option(help="As in facts-1; empty is the agent's, or the service's.")] = "",
    first: Annotated[int, typer.Option("--from", min=0, help="The first message; 0 is the first not drawn from.")] = 0,
    last: Annotated[int, typer.Option("--to", min=0, help="The last message; 0 is the session's last.")] = 0,
    form: FormatOption = Format.TABLE,
) -> None:
    """Draw memories from a session, and wait for it."""

    async def work(services: Services) -> pb.ExtractMemoriesResponse:
        return await services.memories.ExtractMemories(
            pb.ExtractMemoriesRequest(
                session_id=session,
                extractor=extractor,
                first_sequence=first,
                last_sequence=last,
                request_id=str(uuid7()),
            )
        )

    answer = call(work)
    if form is not Format.TABLE:
        output.show_one(answer, form)
        return
    job = answer.job
    output.show_list(list(answer.results), _RESULT_COLUMNS, form)
    state = output.enum_text(extraction_pb2.ExtractionState, job.state)
    stretch = f"messages {job.first_sequence} to {job.last_sequence}" if job.last_sequence else "no messages"
    print(f"{state}: {stretch} by {job.extractor}, {job.refused_count} refused {job.error}".rstrip())


def jobs(
    session: Annotated[str, typer.Option("--session", help="Only jobs of this session.")] = "",
    state: Annotated[str | None, typer.Option("--state", help="pending, running, done or failed.")] = None,
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List extraction jobs, newest first."""
    wanted = output.enum_value(extraction_pb2.ExtractionState, state, "--state")

    async def work(services: Services) -> list[extraction_pb2.ExtractionJob]:
        request = pb.ListExtractionJobsRequest(session_id=session, state=wanted)
        return await take(services.memories.ListExtractionJobs, request, "jobs", extraction_pb2.ExtractionJob, limit)

    output.show_list(call(work), _JOB_COLUMNS, form)


def retry_job(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")], form: FormatOption = Format.TABLE
) -> None:
    """Run a job that failed or is done again, in the background."""

    async def work(services: Services) -> extraction_pb2.ExtractionJob:
        request = pb.RetryExtractionJobRequest(job_id=job, request_id=str(uuid7()))
        return (await services.memories.RetryExtractionJob(request)).job

    output.show_one(call(work), form)


def consolidate(
    agent: Annotated[str, typer.Option(help="The agent that remembers, by name or id.")],
    user: Annotated[str, typer.Option(help="The user it is about.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete what is of little worth and long of no use.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Merge what says the same and end what is no longer so."""

    async def work(services: Services) -> pb.ConsolidateMemoriesResponse:
        return await services.memories.ConsolidateMemories(
            pb.ConsolidateMemoriesRequest(
                agent_id=(await find_agent(services, agent)).agent_id,
                user_id=user,
                dry_run=dry_run,
                prune=prune,
                request_id=str(uuid7()),
            )
        )

    answer = call(work)
    if form is not Format.TABLE:
        output.show_one(answer, form)
        return
    output.show_list(list(answer.actions), _ACTION_COLUMNS, form)
    print(f"{answer.memory_count} memories looked at{', nothing changed' if dry_run else ''}")

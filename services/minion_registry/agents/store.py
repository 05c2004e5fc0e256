"""Rows of agents and their revisions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from minion_errors import AlreadyExists, FailedPrecondition, MinionError, NotFound
from minion_postgres import Record, Transaction, queries
from pydantic import TypeAdapter

from minion_registry.agents.domain import (
    Agent,
    AgentContents,
    AgentFilter,
    AgentHit,
    AgentName,
    AgentStatus,
    BehaviorSettings,
    BehaviorType,
    LlmConfig,
)
from minion_registry.paging import NEWEST, Place, fitting

_QUERIES = queries.load(__package__)
_LLM = TypeAdapter(LlmConfig)
_BEHAVIOR = TypeAdapter(BehaviorSettings)

LATEST_REVISION: Final = 2**63 - 1
# Where an agent stands in what a search found: by score, then as in a list. Pages go backwards from BEST.
Rank = tuple[float, datetime, UUID]
BEST: Final[Rank] = (2.0, *NEWEST)
# Of the agents that have a word of a search, so many of the newest are weighed.
_MOST_CANDIDATES: Final = 1_000


class AgentStore:
    """Reads and writes agents. Each write makes its own line in the feed, and a revision where contents change."""

    async def insert(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, contents: AgentContents) -> Agent:
        """Raises AlreadyExists (AGENT_NAME_TAKEN), and NotFound (TENANT_NOT_FOUND) when there is no such tenant."""
        try:
            row = await transaction.fetch_one(_QUERIES.insert_agent, tenant_id, agent_id, *_columns(contents))
        except asyncpg.UniqueViolationError as error:
            raise _taken(contents) from error
        except asyncpg.ForeignKeyViolationError as error:
            raise NotFound(
                "There is no such tenant.", reason="TENANT_NOT_FOUND", metadata={"tenant_id": str(tenant_id)}
            ) from error
        assert row is not None
        return agent_from_row(row)

    async def update(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, contents: AgentContents) -> Agent:
        """Replaces the contents of a locked agent by a new revision. Raises AlreadyExists (AGENT_NAME_TAKEN)."""
        number = await self._add(transaction, tenant_id, agent_id, contents)
        return await self.make_live(transaction, tenant_id, agent_id, number, renames=True)

    async def stage(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, contents: AgentContents) -> Agent:
        """Keeps contents as a new revision of a locked agent, whose live one goes on; returns it in the new one."""
        number = await self._add(transaction, tenant_id, agent_id, contents)
        await transaction.execute(_QUERIES.stage_revision, tenant_id, agent_id, number)
        return await self.get_revision(transaction, tenant_id, agent_id, number)

    async def make_live(
        self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, revision: int, *, renames: bool = False
    ) -> Agent:
        """Makes a revision of a locked agent the live one; the agent keeps its name unless it `renames` it.

        Raises NotFound (AGENT_NOT_FOUND) when there is no such revision, AlreadyExists (AGENT_NAME_TAKEN) when the
        revision's name is another agent's by now.
        """
        try:
            row = await transaction.fetch_one(_QUERIES.make_live, tenant_id, agent_id, revision, renames)
        except asyncpg.UniqueViolationError as error:
            raise AlreadyExists(
                "Another agent has the name of this revision.",
                reason="AGENT_NAME_TAKEN",
                metadata={"agent_id": str(agent_id), "revision": str(revision)},
            ) from error
        if row is None:
            raise _no_revision(agent_id, revision)
        return agent_from_row(row)

    async def set_rollout(
        self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, rollout_id: UUID | None
    ) -> None:
        """Notes which rollout of a locked agent is under way; None ends it."""
        await transaction.execute(_QUERIES.set_rollout, tenant_id, agent_id, rollout_id)

    async def check_no_rollout(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID) -> None:
        """Raises FailedPrecondition (ROLLOUT_RUNNING) while a rollout of a locked agent is under way."""
        rollout_id = await transaction.fetch_value(_QUERIES.running_rollout, tenant_id, agent_id)
        if rollout_id is not None:
            raise FailedPrecondition(
                "A rollout compares the agent's live revision with another.",
                reason="ROLLOUT_RUNNING",
                metadata={"agent_id": str(agent_id), "rollout_id": str(rollout_id)},
            )

    async def set_status(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, status: AgentStatus) -> Agent:
        """Moves a locked agent to another status."""
        row = await transaction.fetch_one(_QUERIES.set_agent_status, tenant_id, agent_id, status.value)
        assert row is not None
        return agent_from_row(row)

    async def touch(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID) -> None:
        """Notes that the tools of a locked agent changed."""
        await transaction.execute(_QUERIES.touch_agent, tenant_id, agent_id)

    async def delete(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID) -> None:
        """Deletes a locked agent that is a draft or archived, with its revisions and bindings."""
        deleted = await transaction.execute(_QUERIES.delete_agent, tenant_id, agent_id)
        assert deleted == 1

    async def get(self, transaction: Transaction, tenant_id: UUID, named: AgentName) -> Agent:
        """Raises NotFound (AGENT_NOT_FOUND)."""
        if named.agent_id is not None:
            row = await transaction.fetch_one(_QUERIES.get_agent, tenant_id, named.agent_id)
        else:
            row = await transaction.fetch_one(_QUERIES.get_agent_by_name, tenant_id, named.name)
        if row is None:
            raise not_found(named)
        return agent_from_row(row)

    async def lock(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID) -> Agent:
        """Reads an agent that nobody else changes until the transaction ends. Raises NotFound (AGENT_NOT_FOUND)."""
        row = await transaction.fetch_one(_QUERIES.lock_agent, tenant_id, agent_id)
        if row is None:
            raise not_found(AgentName(agent_id=agent_id))
        return agent_from_row(row)

    async def get_revision(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, revision: int) -> Agent:
        """Raises NotFound (AGENT_NOT_FOUND)."""
        row = await transaction.fetch_one(_QUERIES.get_agent_revisions, tenant_id, agent_id, [revision])
        if row is None:
            raise _no_revision(agent_id, revision)
        return agent_from_row(row)

    async def revisions(
        self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, before: int, count: int
    ) -> tuple[Sequence[Agent], int | None]:
        """Returns a page of at most `count` revisions before a number, newest first.

        Its second part is the last one's number where others follow.
        """
        listed = await transaction.fetch(_QUERIES.list_agent_revisions, tenant_id, agent_id, before, count + 1)
        kept = fitting([row["wire_bytes"] for row in listed], count)
        numbers = [row["revision"] for row in listed[:kept]]
        rows = await transaction.fetch(_QUERIES.get_agent_revisions, tenant_id, agent_id, numbers)
        return [agent_from_row(row) for row in rows], numbers[-1] if len(listed) > kept else None

    async def page(
        self, transaction: Transaction, tenant_id: UUID, selected: AgentFilter, before: Place, count: int
    ) -> tuple[Sequence[Agent], Place | None]:
        """Returns a page of at most `count` agents before a place, newest first.

        Its second part is the last one's place where others follow.
        """
        listed = await self._listed(transaction, tenant_id, (*before, count + 1), selected)
        kept = fitting([row["wire_bytes"] for row in listed], count)
        found = await self._found(transaction, tenant_id, [row["agent_id"] for row in listed[:kept]])
        last = (listed[kept - 1]["create_time"], listed[kept - 1]["agent_id"]) if len(listed) > kept else None
        return found, last

    async def search(
        self, transaction: Transaction, tenant_id: UUID, words: str, selected: AgentFilter, before: Rank, count: int
    ) -> tuple[Sequence[AgentHit], Rank | None]:
        """Returns a page of at most `count` agents that have any of the words, the best before a rank first.

        Looks at status and capabilities of what is selected alone. Its second part is the last one's rank where others
        follow.
        """
        listed = await transaction.fetch(
            _QUERIES.search_agents,
            tenant_id,
            words,
            selected.status.value if selected.status else None,
            list(selected.capabilities) or None,
            _MOST_CANDIDATES,
            *before,
            count + 1,
        )
        kept = fitting([row["wire_bytes"] for row in listed], count)
        agents = {
            agent.agent_id: agent
            for agent in await self._found(transaction, tenant_id, [row["agent_id"] for row in listed[:kept]])
        }
        # One that was deleted between the two statements is left out.
        hits = [AgentHit(agents[row["agent_id"]], row["score"]) for row in listed[:kept] if row["agent_id"] in agents]
        if len(listed) <= kept:
            return hits, None
        last = listed[kept - 1]
        return hits, (last["score"], last["create_time"], last["agent_id"])

    async def _add(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, contents: AgentContents) -> int:
        number = await transaction.fetch_value(_QUERIES.add_revision, tenant_id, agent_id, *_columns(contents))
        assert isinstance(number, int)
        return number

    async def _found(self, transaction: Transaction, tenant_id: UUID, ids: Sequence[UUID]) -> Sequence[Agent]:
        return [agent_from_row(row) for row in await transaction.fetch(_QUERIES.get_agents, tenant_id, ids)]

    async def _listed(
        self, transaction: Transaction, tenant_id: UUID, until: tuple[object, ...], selected: AgentFilter
    ) -> Sequence[Record]:
        """Lists ids. The filter likely to match fewest decides which index is walked; the others look at its rows."""
        where = (tenant_id, *until)
        status = selected.status.value if selected.status else None
        behavior_type = selected.behavior_type
        capabilities = list(selected.capabilities)
        others = (status, behavior_type, capabilities or None)
        if selected.metadata:
            rows = await transaction.fetch(_QUERIES.metadata_leaves, selected.metadata)
            first, *more = [row["leaf"] for row in rows]
            return await transaction.fetch(
                _QUERIES.list_agents_by_metadata, *where, *others, first, more, selected.labels or None
            )
        if selected.labels:
            key, value = min(selected.labels.items())
            more_labels = {name: wanted for name, wanted in selected.labels.items() if name != key} or None
            return await transaction.fetch(_QUERIES.list_agents_by_label, *where, *others, key, value, more_labels)
        if capabilities:
            return await transaction.fetch(
                _QUERIES.list_agents_by_capability,
                *where,
                status,
                behavior_type,
                capabilities[0],
                capabilities[1:] or None,
            )
        if status is not None:
            return await transaction.fetch(_QUERIES.list_agents_by_status, *where, status, behavior_type)
        if behavior_type is not None:
            return await transaction.fetch(_QUERIES.list_agents_by_behavior_type, *where, behavior_type)
        return await transaction.fetch(_QUERIES.list_agents, *where)


def agent_from_row(row: Record | Mapping[str, Any]) -> Agent:
    """Reads an agent from a row that has its columns."""
    return Agent(
        agent_id=row["agent_id"],
        contents=AgentContents(
            name=row["name"],
            display_name=row["display_name"],
            description=row["description"],
            behavior_type=BehaviorType(row["behavior_type"]),
            instructions=row["instructions"],
            llm=_LLM.validate_python(row["llm"]),
            capabilities=tuple(row["capabilities"]),
            behavior=_BEHAVIOR.validate_python(row["behavior"]),
            metadata=row["metadata"],
            labels=row["labels"],
        ),
        status=AgentStatus(row["status"]),
        revision=row["revision"],
        version=row["version"],
        create_time=row["create_time"],
        update_time=row["updated_at"],
        live_revision=row["live_revision"],
        latest_revision=row["latest_revision"],
    )


def not_found(named: AgentName) -> NotFound:
    """Builds the error for an agent that the tenant doesn't have."""
    metadata = {"agent_id": str(named.agent_id)} if named.agent_id is not None else {"name": named.name or ""}
    return NotFound("There is no such agent.", reason="AGENT_NOT_FOUND", metadata=metadata)


def _no_revision(agent_id: UUID, revision: int) -> NotFound:
    return NotFound(
        "The agent has no such revision.",
        reason="AGENT_NOT_FOUND",
        metadata={"agent_id": str(agent_id), "revision": str(revision)},
    )


def _columns(contents: AgentContents) -> tuple[object, ...]:
    return (
        contents.name,
        contents.display_name,
        contents.description,
        contents.behavior_type.value,
        contents.instructions,
        _LLM.dump_python(contents.llm, mode="json"),
        list(contents.capabilities),
        _BEHAVIOR.dump_python(contents.behavior, mode="json"),
        contents.metadata,
        contents.labels,
    )


def _taken(contents: AgentContents) -> MinionError:
    return AlreadyExists(
        "Another agent has this name or id.", reason="AGENT_NAME_TAKEN", metadata={"name": contents.name}
    )

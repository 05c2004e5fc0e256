"""Working memory in Postgres."""

from datetime import datetime
from uuid import UUID

import orjson
from minion_errors import Aborted, ResourceExhausted
from minion_postgres import Database, Key, Record, queries

from minion_session.sessions.domain import SessionStatus, not_active, not_found
from minion_session.workspace.domain import MOST_BYTES, MOST_ENTRIES, Changes, Entry, Keys

_QUERIES = queries.load(__package__)


class WorkspaceStore:
    """Reads and writes working memory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: UUID, wanted: Keys) -> tuple[Entry, ...]:
        """Reads the entries of these keys, or all when there are no keys, in the order of their keys.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
        """
        async with self._database.transaction(tenant_id) as transaction:
            if wanted.keys:
                rows = await transaction.fetch(
                    _QUERIES.get_workspace_entries, tenant_id, wanted.session_id, wanted.keys
                )
            else:
                rows = await transaction.fetch(_QUERIES.get_workspace, tenant_id, wanted.session_id)
        if not rows:
            raise not_found(wanted.session_id)
        return tuple(
            Entry(row["key"], row["value"], row["version"], row["update_time"])
            for row in rows
            if row["key"] is not None
        )

    async def set(self, tenant_id: UUID, wanted: Changes, key: Key | None) -> tuple[Entry, ...]:
        """Stores values, all or none, and gives them in their new versions, in the order given.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            FailedPrecondition: it is closed or expired, and no run holds it (`SESSION_NOT_ACTIVE`).
            Aborted: an entry isn't at its expected version (`WORKSPACE_VERSION_MOVED`).
            ResourceExhausted: there would be too many entries, or too large ones (`WORKSPACE_FULL`).
        """
        changes = wanted.changes
        row = await self._database.fetch_one(
            _QUERIES.set_workspace_entries,
            tenant_id,
            wanted.session_id,
            key.request_id if key else None,
            key.digest if key else None,
            [change.key for change in changes],
            # JSON as text: None would be SQL's NULL, not JSON's.
            [orjson.dumps(change.value).decode() for change in changes],
            [change.byte_count for change in changes],
            [change.expected_version for change in changes],
            MOST_ENTRIES,
            MOST_BYTES,
        )
        assert row is not None
        match row["outcome"]:
            case "OK":
                return tuple(
                    Entry(stored["key"], change.value, stored["version"], datetime.fromisoformat(stored["update_time"]))
                    for stored, change in zip(row["entries"], changes, strict=True)
                )
            case "WORKSPACE_VERSION_MOVED":
                raise Aborted(
                    "An entry is at another version.",
                    reason="WORKSPACE_VERSION_MOVED",
                    metadata={"key": row["moved_key"], "version": str(row["moved_version"])},
                )
            case "WORKSPACE_FULL":
                raise ResourceExhausted(
                    f"The workspace holds at most {MOST_ENTRIES} entries and {MOST_BYTES} bytes.",
                    reason="WORKSPACE_FULL",
                    metadata={"limit": str(MOST_ENTRIES), "limit_bytes": str(MOST_BYTES)},
                )
            case _:
                raise _refused(row, wanted.session_id)

    async def delete(self, tenant_id: UUID, wanted: Keys, key: Key | None) -> int:
        """Deletes entries and tells how many were there.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            FailedPrecondition: it is closed or expired, and no run holds it (`SESSION_NOT_ACTIVE`).
        """
        row = await self._database.fetch_one(
            _QUERIES.delete_workspace_entries,
            tenant_id,
            wanted.session_id,
            key.request_id if key else None,
            key.digest if key else None,
            wanted.keys,
        )
        assert row is not None
        if row["outcome"] != "OK":
            raise _refused(row, wanted.session_id)
        return int(row["deleted"])


def _refused(row: Record, session_id: UUID) -> Exception:
    match row["outcome"]:
        case "SESSION_NOT_FOUND":
            return not_found(session_id)
        case "SESSION_NOT_ACTIVE":
            return not_active(session_id, SessionStatus(row["status"]))
        case outcome:
            raise ValueError(f"the database answered {outcome!r}, which this release doesn't know")

"""Between the contract's working memory and the domain's."""

from collections.abc import Sequence

import orjson
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_session import requests
from minion_session.workspace.domain import Change, Changes, Entry, Keys

_MOST_VALUE_BYTES = 64 * 1024


def get_from_proto(request: pb.GetWorkspaceRequest) -> Keys:
    """Reads which entries are asked for."""
    violations = Violations()
    wanted = Keys(
        session_id=violations.identifier("session_id", request.session_id),
        keys=_keys(request.keys, violations, minimum=0),
    )
    violations.raise_if_any()
    return wanted


def set_from_proto(request: pb.SetWorkspaceEntriesRequest) -> tuple[Changes, Key | None]:
    """Reads which entries to set."""
    violations = Violations()
    violations.count("changes", request.changes, minimum=1, maximum=100)
    changes = Changes(
        session_id=violations.identifier("session_id", request.session_id),
        changes=tuple(
            _change_from_proto(change, f"changes[{index}]", violations) for index, change in enumerate(request.changes)
        ),
    )
    if len({change.key for change in changes.changes}) < len(changes.changes):
        violations.add("changes", "must have different keys")
    key = requests.key(violations, request)
    violations.raise_if_any()
    return changes, key


def delete_from_proto(request: pb.DeleteWorkspaceEntriesRequest) -> tuple[Keys, Key | None]:
    """Reads which entries to delete."""
    violations = Violations()
    wanted = Keys(
        session_id=violations.identifier("session_id", request.session_id),
        keys=_keys(request.keys, violations, minimum=1),
    )
    key = requests.key(violations, request)
    violations.raise_if_any()
    return wanted, key


def entries_to_proto(entries: Sequence[Entry]) -> list[session_pb2.WorkspaceEntry]:
    """Writes entries."""
    return [_entry_to_proto(entry) for entry in entries]


def _entry_to_proto(entry: Entry) -> session_pb2.WorkspaceEntry:
    return session_pb2.WorkspaceEntry(
        key=entry.key,
        value=wire.to_value(entry.value),
        version=entry.version,
        update_time=wire.to_timestamp(entry.update_time),
    )


def _keys(keys: Sequence[str], violations: Violations, *, minimum: int) -> tuple[str, ...]:
    violations.count("keys", keys, minimum=minimum, maximum=100)
    return tuple(violations.length(f"keys[{index}]", key, minimum=1, maximum=200) for index, key in enumerate(keys))


def _change_from_proto(change: pb.WorkspaceChange, field: str, violations: Violations) -> Change:
    if change.value.WhichOneof("kind") is None:
        violations.add(f"{field}.value", "is required")
    value = wire.from_value(change.value, f"{field}.value", violations)
    size = len(orjson.dumps(value))
    if size > _MOST_VALUE_BYTES:
        violations.add(f"{field}.value", f"must have at most {_MOST_VALUE_BYTES} bytes as JSON, has {size}")
    return Change(
        key=violations.length(f"{field}.key", change.key, minimum=1, maximum=200),
        value=value,
        byte_count=requests.reply_bytes(change, value),
        expected_version=change.expected_version if change.HasField("expected_version") else None,
    )

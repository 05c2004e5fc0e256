"""Where a session may be forked: nowhere inside a tool exchange."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from minion_errors import AlreadyExists, FailedPrecondition, InvalidArgument, Violation

from minion_session.messages.domain import Role

# How far around the place exchanges are looked for.
REACH = 200


@dataclass(frozen=True, slots=True)
class NewFork:
    """A fork to open; None leaves the place (the session's last message), the id, the name, the life to us."""

    session_id: UUID
    at_sequence: int | None
    fork_session_id: UUID | None
    display_name: str | None
    ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class Said:
    """What a message has to do with tools: the ids of the calls that it makes, and of those that it answers."""

    sequence: int
    role: Role
    calls: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


def last_whole(said: Sequence[Said], place: int, last_sequence: int) -> int:
    """Finds the last place, up to a wanted one, at which a transcript may end without parting a call from its result.

    A call that is still open (nobody has spoken since) is not parted from the result that may come.

    Args:
        said: the messages around the place, in order; what lies further away is not looked at.
        place: the wanted place.
        last_sequence: where the session ends.
    """
    spans: list[tuple[int, int]] = []
    unanswered: dict[str, int] = {}
    for message in said:
        for call in message.results:
            caller = unanswered.pop(call, None)
            if caller is not None:
                spans.append((caller, message.sequence))
        for call in message.calls:
            unanswered[call] = message.sequence
    if said and said[-1].sequence == last_sequence:
        spoken = max((one.sequence for one in said if one.role in (Role.USER, Role.ASSISTANT)), default=0)
        spans += [(caller, last_sequence + 1) for caller in unanswered.values() if caller == spoken]
    # The spans are few, and moving before one may move into another.
    moved = True
    while moved:
        moved = False
        for begin, end in spans:
            if begin <= place < end:
                place, moved = begin - 1, True
    return place


def out_of_range(last_sequence: int) -> InvalidArgument:
    """Makes the error of a place that the session hasn't reached."""
    return InvalidArgument(
        "The session has no such message.",
        reason="SEQUENCE_OUT_OF_RANGE",
        metadata={"last_sequence": str(last_sequence)},
        violations=[Violation("at_sequence", f"must be at most {last_sequence}")],
    )


def inside_exchange(place: int) -> FailedPrecondition:
    """Makes the error of a place inside an exchange; `place` is the nearest before that is not."""
    return FailedPrecondition(
        f"The fork would part a tool call from its result; message {place} is the nearest place before.",
        reason="FORK_INSIDE_EXCHANGE",
        metadata={"last_whole_sequence": str(place)},
    )


def id_taken(session_id: UUID) -> AlreadyExists:
    """Makes the error of a proposed id that another session has."""
    return AlreadyExists(
        "Another session has this id.", reason="SESSION_ID_TAKEN", metadata={"session_id": str(session_id)}
    )

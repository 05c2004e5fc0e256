"""The deadline of the call in hand, in a context variable: gRPC itself forgets it at the next hop."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from minion_errors import DeadlineExceeded

# Kept back from what is passed on, so that the peer's DEADLINE_EXCEEDED still arrives before our own.
MARGIN_SECONDS = 0.02

_deadline: ContextVar[float | None] = ContextVar("minion_deadline", default=None)


def remaining() -> float | None:
    """Gives the seconds left to the call in hand, negative once it is over; None where there is no deadline."""
    at = _deadline.get()
    return None if at is None else at - monotonic()


def enter(seconds: float | None) -> None:
    """Sets the deadline of the current task and of the tasks that it makes."""
    _deadline.set(None if seconds is None else monotonic() + seconds)


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Sets another deadline inside the block (None: none at all), for work that outlives its call or is shorter."""
    token = _deadline.set(None if seconds is None else monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def passed_on(own: float | None) -> float | None:
    """Gives the timeout of an outgoing call, in seconds: the caller's own or what is left here, whichever is less.

    Raises:
        DeadlineExceeded: nothing is left.
    """
    left = remaining()
    if left is None:
        return own
    left -= MARGIN_SECONDS
    if left <= 0:
        raise exceeded()
    return left if own is None else min(own, left)


def exceeded() -> DeadlineExceeded:
    """Makes the error of a call that ran out of time."""
    return DeadlineExceeded("The call's deadline ran out.", reason="DEADLINE_EXCEEDED")

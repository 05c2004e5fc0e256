"""How driving a run ends early, and which failures of peers pass."""

from minion_errors import Aborted, DeadlineExceeded, MinionError, ResourceExhausted, Unavailable


class FencedError(Exception):
    """Another replica drives the run: this one is a ghost, stops, and writes nothing."""


class AbandonedError(Exception):
    """The database can't be reached: the run is left to whoever leases it next."""


class RunFailedError(Exception):
    """The run can't go on, and says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def passes(fault: MinionError) -> bool:
    """Whether asking again can help: the peer is away, busy, or another run is just about to let go."""
    if isinstance(fault, ResourceExhausted):
        return fault.retry_after is not None
    return isinstance(fault, Unavailable | DeadlineExceeded | Aborted) or fault.reason == "SESSION_HELD"

"""How driving a run ends early."""


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

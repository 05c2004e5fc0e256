"""The exception tree; see the package's docstring for the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks its stated limit.

    `field` is the path from the request's root, as in `messages[2].parts[0].text`.
    """

    field: str
    description: str


class MinionError(Exception):
    """Any failure that a caller can be told about.

    `reason` is the machine-readable cause, a value of an `ErrorReason` enum of the contract without its prefix.
    `metadata` names the things concerned (ids, states, limits); it reaches the caller, so it never holds content or
    secrets. `note` is for operators alone: logs and the text of the exception have it, callers never.
    """

    def __init__(self, message: str, *, reason: str, metadata: Mapping[str, str] | None = None, note: str = "") -> None:
        super().__init__(f"{message} ({note})" if note else message)
        self.message = message
        self.note = note
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidArgument(MinionError):
    """The request is malformed; `violations` lists every fault found, not the first alone."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "INVALID_FIELDS",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.violations = tuple(violations)


class Unauthenticated(MinionError):
    """The caller is nobody we know."""


class PermissionDenied(MinionError):
    """The caller is known and may not do this."""


class NotFound(MinionError):
    """No such thing in the caller's tenant; a foreign tenant's thing reads the same."""


class AlreadyExists(MinionError):
    """Another thing holds this key, or this request_id came with another body."""


class Aborted(MinionError):
    """It moved since the caller read it: read again, then retry."""


class FailedPrecondition(MinionError):
    """Its state forbids it, and a retry alone won't help."""


class _Retriable(MinionError):
    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
        note: str = "",
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata, note=note)
        self.retry_after = retry_after


class ResourceExhausted(_Retriable):
    """A limit or a budget was reached."""


class DeadlineExceeded(MinionError):
    """Out of time; the effect may have happened: retry with the same request_id."""


class Unimplemented(MinionError):
    """The feature is switched off by a setting."""


class Unavailable(_Retriable):
    """A dependency is down; retry after `retry_after`."""

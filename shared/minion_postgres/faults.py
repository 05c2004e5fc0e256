"""What asyncpg raises, in the domain's words.

SQL functions raise domain errors themselves where a row can't say it: SQLSTATE class `MN`, the reason as the message,
the sentence for the caller as DETAIL, and the metadata as a JSON object in HINT:

```sql
RAISE EXCEPTION 'SESSION_NOT_ACTIVE' USING ERRCODE = 'MN412', DETAIL = 'The session is closed.',
    HINT = jsonb_build_object('session_id', session)::text;
```

MN400 InvalidArgument, MN404 NotFound, MN409 AlreadyExists, MN410 Aborted, MN412 FailedPrecondition,
MN429 ResourceExhausted. Postgres logs each as an error: outcomes that are frequent belong into the function's row.
"""

from datetime import timedelta
from typing import Final

import asyncpg
import orjson
from minion_errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MinionError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

RETRY_AFTER: Final = timedelta(seconds=1)

_RAISED: Final[dict[str, type[MinionError]]] = {
    "MN400": InvalidArgument,
    "MN404": NotFound,
    "MN409": AlreadyExists,
    "MN410": Aborted,
    "MN412": FailedPrecondition,
    "MN429": ResourceExhausted,
}

# The server is going, starting, full or out of resources; the connection, if there is one, is lost.
_SERVER_GONE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TargetServerAttributeNotMatched,
    # The server's last word came while the driver was about to speak: it has lost count of what it waits for.
    asyncpg.InternalClientError,
    OSError,
)
_REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    # "not currently accepting connections": the database is being restored, renamed or taken out of use.
    asyncpg.ObjectNotInPrerequisiteStateError,
)


def unavailable(place: str, why: str, *, outcome: str) -> Unavailable:
    """Builds the error for a database that can't be used now.

    `outcome` is "none" when nothing was written, "unknown" when the connection was lost before the answer: then read
    again by key before writing again. Where the database is and what it said is for operators alone.
    """
    return Unavailable(
        "The database is not available.",
        reason="DATABASE_UNAVAILABLE",
        metadata={"outcome": outcome},
        retry_after=RETRY_AFTER,
        note=f"{place}: {why}",
    )


def while_connecting(error: Exception, place: str) -> MinionError | None:
    """Translates a fault met before any statement was sent; None leaves the error as it is."""
    if isinstance(error, TimeoutError):
        return unavailable(place, "no connection became free in time", outcome="none")
    if isinstance(error, _REFUSED):
        return unavailable(place, f"it refused the connection ({error})", outcome="none")
    if isinstance(error, (*_SERVER_GONE, asyncpg.InterfaceError)):
        return unavailable(place, str(error) or type(error).__name__, outcome="none")
    return None


def while_running(error: Exception, place: str, *, closed: bool, commits: bool) -> MinionError | None:
    """Translates a fault of a statement; None leaves the error as it is.

    `closed` says whether the connection was lost with it: an InterfaceError is a lost connection or else a mistake of
    ours, which must stay one. `commits` says that the statement commits by itself.
    """
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return DeadlineExceeded("The database did not answer in time.", reason="DATABASE_TIMEOUT")
    if isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError | asyncpg.LockNotAvailableError):
        return Aborted("Another transaction was in the way; nothing was written.", reason="TRANSACTION_CONFLICT")
    if isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name == "idempotency_keys_pkey":
        return Aborted("The first call with this request_id is still running.", reason="REQUEST_IN_PROGRESS")
    if isinstance(error, asyncpg.PostgresError) and (raised := _RAISED.get(error.sqlstate or "")):
        return _raised(raised, error)
    if isinstance(error, _SERVER_GONE) or (closed and isinstance(error, asyncpg.InterfaceError)):
        refused = isinstance(error, asyncpg.InsufficientResourcesError | asyncpg.ReadOnlySQLTransactionError)
        outcome = "unknown" if commits and not refused else "none"
        return unavailable(place, str(error) or type(error).__name__, outcome=outcome)
    return None


def _raised(raised: type[MinionError], error: asyncpg.PostgresError) -> MinionError:
    hint = getattr(error, "hint", None)
    metadata = {str(name): str(value) for name, value in orjson.loads(hint).items()} if hint else {}
    reason = str(error.args[0])
    return raised(getattr(error, "detail", None) or reason, reason=reason, metadata=metadata)

"""What every provider's errors have in common.

`metadata["charged"]` says whether the provider can have charged for the attempt: `no` when it refused or was never
reached, `maybe` when the request was out and the answer did not come whole. Only `no` is safe to try again without
counting the attempt.
"""

from datetime import timedelta

from minion_errors import MinionError, Unavailable

# What callers are told to wait where the provider says nothing.
DEFAULT_RETRY = timedelta(seconds=1)


def may_be_charged(error: MinionError) -> bool:
    """Whether the provider can have charged for the attempt that ended so."""
    return error.metadata.get("charged", "maybe") != "no"


def answer_invalid(message: str) -> Unavailable:
    """The answer came and can't be read, or did not come whole."""
    return Unavailable(
        message, reason="PROVIDER_ANSWER_INVALID", metadata={"charged": "maybe"}, retry_after=DEFAULT_RETRY
    )

"""What went wrong at a provider that speaks OpenAI's protocol, in our words.

Each error says in `metadata["charged"]` whether the provider can have charged for the attempt; see `faults`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from minion_errors import FailedPrecondition, InvalidArgument, MinionError, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    import openai

Charged = Literal["no", "maybe"]

_LONGEST_MESSAGE = 300
_TOO_LONG = re.compile(r"context.{0,20}(length|window)|maximum.{0,20}tokens|too many tokens|prompt is too long", re.I)
_SCHEMA = re.compile(r"response_format|json_schema", re.I)
# Refusals that waiting mends: 408 and 425 ask for it, 409 is a lock.
_PASSING = frozenset({408, 409, 425})


def unavailable(message: str, charged: Charged, retry_after: timedelta | None = None) -> Unavailable:
    """The provider is away, silent or broken; `retry_after` is what it asks for itself."""
    return Unavailable(message, reason="PROVIDER_UNAVAILABLE", metadata={"charged": charged}, retry_after=retry_after)


def stream_failed(error: object) -> MinionError:
    """An error that the provider put into a stream that had begun well."""
    code = str(error.get("code") or "") if isinstance(error, Mapping) else ""
    if code == "rate_limit_exceeded":
        return _rate_limited("The provider stopped its stream: too many requests.", None, "maybe")
    return unavailable("The provider stopped its stream with an error.", "maybe")


def connection_failed(error: Exception, *, sent: bool) -> MinionError:
    """A connection that was refused, reset or silent for too long."""
    what = "can't be reached" if not sent else "did not answer whole in time"
    fault = unavailable(f"The provider {what}.", "maybe" if sent else "no")
    fault.metadata["cause"] = type(error).__name__
    return fault


def status_refused(error: "openai.APIStatusError", model: str) -> MinionError:
    """Any answer of 4xx or 5xx."""
    status, code = error.status_code, error.code or ""
    retry_after = _retry_after(error.response.headers)
    if status in {401, 403}:
        return FailedPrecondition(
            "The provider refuses the key in OPENAI_API_KEY.",
            reason="PROVIDER_CREDENTIAL_REFUSED",
            metadata={"setting": "OPENAI_API_KEY", "charged": "no"},
        )
    if status == 429:
        exhausted = code == "insufficient_quota"
        message = "The provider's quota is used up." if exhausted else "The provider refuses more requests for now."
        limited = _rate_limited(message, retry_after, "no")
        limited.metadata["code"] = code or "rate_limit_exceeded"
        return limited
    if status >= 500 or status in _PASSING:
        return unavailable(f"The provider failed with status {status}.", "no", retry_after)
    said = _said(error)
    if code == "context_length_exceeded" or (status in {400, 413, 422} and _TOO_LONG.search(said)):
        return InvalidArgument(
            f"The messages take more tokens than the model can read: {said}",
            reason="CONTEXT_TOO_LONG",
            metadata={"model": model, "charged": "no"},
        )
    if code == "model_not_found" or (status == 404 and "model" in said.lower()):
        return InvalidArgument(
            "The provider knows no such model.", reason="MODEL_NOT_FOUND", metadata={"model": model, "charged": "no"}
        )
    if status in {400, 422} and _SCHEMA.search(said):
        return InvalidArgument(
            f"The model takes no schema for its answer: {said}",
            reason="RESPONSE_SCHEMA_UNSUPPORTED",
            metadata={"model": model, "charged": "no"},
        )
    return InvalidArgument(
        f"The provider refuses the request (status {status}): {said}",
        reason="PROVIDER_REQUEST_REFUSED",
        metadata={"status": str(status), "charged": "no"},
    )


def _rate_limited(message: str, retry_after: timedelta | None, charged: Charged) -> ResourceExhausted:
    return ResourceExhausted(
        message,
        reason="PROVIDER_RATE_LIMITED",
        metadata={"charged": charged},
        retry_after=retry_after,
    )


def _said(error: "openai.APIStatusError") -> str:
    """The provider's own words, short; they concern the request, never our key."""
    body: Any = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return str(message)[:_LONGEST_MESSAGE] if message else "it says no more."


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Reads `retry-after-ms`, and `Retry-After` as seconds or as a date (RFC 9110, 10.2.3)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return _positive(timedelta(milliseconds=float(milliseconds)))
        value = headers.get("retry-after")
        if not value:
            return None
        try:
            return _positive(timedelta(seconds=float(value)))
        except ValueError:
            return _positive(parsedate_to_datetime(value) - datetime.now(UTC))
    except (ValueError, OverflowError, TypeError):
        return None


def _positive(wait: timedelta) -> timedelta:
    return max(wait, timedelta(0))

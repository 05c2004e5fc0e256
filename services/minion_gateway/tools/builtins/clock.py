"""`clock`: the time, here or there. READ_ONLY."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from minion_gateway.tools.domain import Invocation, ToolFailedError


class Clock:
    """Tells the time in UTC, and in `timezone` (an IANA name) where one is given."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now

    async def __call__(self, invocation: Invocation) -> Any:
        """Returns `utc`, `weekday` and, for another zone, `local` and `timezone`."""
        name = invocation.arguments.get("timezone") or "UTC"
        try:
            zone = ZoneInfo(str(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ToolFailedError(
                f"There is no time zone {str(name)[:64]!r}: give an IANA name such as Europe/Paris."
            ) from None
        moment = self._now().replace(microsecond=0)
        local = moment.astimezone(zone)
        told = {"utc": moment.isoformat().replace("+00:00", "Z"), "weekday": local.strftime("%A")}
        if name != "UTC":
            told |= {"local": local.isoformat(), "timezone": str(name)}
        return told

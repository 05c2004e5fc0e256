"""Spans of time as people write them."""

import re
from datetime import timedelta

import typer
from google.protobuf.duration_pb2 import Duration

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span(text: str | None, option: str) -> Duration | None:
    """Reads a span such as 90s, 15m, 12h or 30d; None is none, anything else a usage error that names the option."""
    if text is None:
        return None
    found = _SPAN.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no span such as 90s, 15m, 12h or 30d.", param_hint=option)
    duration = Duration()
    duration.FromTimedelta(timedelta(**{_UNITS[found[2]]: float(found[1])}))
    return duration

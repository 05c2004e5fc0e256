"""Structured logs: one JSON object a line, with the call's context, its trace, and nothing personal.

`configure_logging` is called once a process; everything else takes loggers by `structlog.get_logger()`. What was bound
by `bind_fields` is on every line of the task. The standard library's loggers come out in the same shape.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, BinaryIO

import orjson
import structlog
from opentelemetry import trace

from minion_telemetry import masking

_LEVEL_NAMES = {"warn": "warning", "exception": "error", "fatal": "critical"}
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# It quotes headers that it can't read, keys among them.
_SILENT = ("opentelemetry.util.re",)

# Made by us, from fixed words or ids: masking them would only cost time.
_KNOWN_CLEAN = frozenset(
    {
        "timestamp",
        "level",
        "trace_id",
        "span_id",
        "service",
        "method",
        "code",
        "tenant_id",
        "request_id",
        "duration_ms",
    }
)

# structlog's own variables, one a field, have each line walk through all variables of the task.
_bound: ContextVar[Mapping[str, Any]] = ContextVar("minion_log_fields", default=MappingProxyType({}))


def configure_logging(level: str = "info", format: str = "json", *, stream: BinaryIO | None = None) -> None:
    """Sets the process's logs up; a second call replaces the first one's settings.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        format: `json`, or `console` for people.
        stream: where the lines go; the process's standard error (as it is when a line is written) when None.
    """
    number = _LEVELS[level]
    render = _render_json if format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[_complete, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_WriterFactory(stream),
        # Services of one process share the settings, and tests change them: a cached logger would keep the old ones.
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [found for found in root.handlers if isinstance(found, _ToStructlog)]:
        root.removeHandler(handler)
    root.addHandler(_ToStructlog())
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Libraries speak from warnings up; their chatter at lower levels is asked for by `debug` alone.
    root.setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))


def bind_fields(**fields: object) -> None:
    """Puts fields on every line that the current task logs from now on, and on those of the tasks that it makes."""
    _bound.set({**_bound.get(), **_masked(fields)})


@contextmanager
def bound_fields(**fields: object) -> Iterator[None]:
    """Puts fields on every line of the block."""
    token = _bound.set({**_bound.get(), **_masked(fields)})
    try:
        yield
    finally:
        _bound.reset(token)


class PlainLog:
    """Writes lines whose fields are words, numbers and ids of ours: nothing of them is masked.

    For the line that each call ends with, at half of what a logger of structlog's takes. Follows its settings as they
    are when this is made.
    """

    __slots__ = ("_is_quiet", "_processors", "_writer")

    def __init__(self) -> None:
        config = structlog.get_config()
        self._is_quiet = not structlog.get_logger().is_enabled_for(logging.INFO)
        self._processors = config["processors"]
        self._writer = config["logger_factory"]()

    def info(self, event: str, fields: Mapping[str, object]) -> None:
        """Writes a line."""
        if self._is_quiet:
            return
        line = {**_bound.get(), **fields, "event": event}
        _sign(line, "info")
        try:
            rendered = self._processors[-1](None, "info", line)
        except structlog.DropEvent:
            # Somebody else took it: a test does.
            return
        self._writer.msg(rendered)


class _Writer:
    """Writes finished lines; looks standard error up each time, so that whoever replaces it gets the lines."""

    __slots__ = ("_stream",)

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = stream

    def msg(self, line: bytes | str) -> None:
        data = line if isinstance(line, bytes) else line.encode()
        stream = self._stream or getattr(sys.stderr, "buffer", None)
        if stream is None:
            sys.stderr.write(f"{data.decode()}\n")
            return
        # One write a line, so that lines of several threads don't mix.
        stream.write(data + b"\n")
        stream.flush()

    debug = info = warning = error = critical = exception = log = msg


class _WriterFactory:
    __slots__ = ("_writer",)

    def __init__(self, stream: BinaryIO | None) -> None:
        self._writer = _Writer(stream)

    def __call__(self, *_: object) -> _Writer:
        return self._writer


class _ToStructlog(logging.Handler):
    """Hands records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record.getMessage()
        except (TypeError, ValueError):
            event = str(record.msg)
        logger = structlog.get_logger()
        logger.log(record.levelno, event, logger=record.name, exc_info=record.exc_info or None)


def _complete(_: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # One processor: a chain of seven costs three times as much.
    if "exc_info" in event:
        structlog.processors.format_exc_info(None, method, event)
    line = {**_bound.get(), **_masked(event)}
    _sign(line, method)
    return line


def _masked(fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks fields where they stand."""
    for name, value in fields.items():
        kind = value.__class__
        if name in _KNOWN_CLEAN or kind is int or kind is float:
            continue
        if name == "principal" and kind is str:
            fields[name] = masking.mask_principal(value)
            continue
        if masking.is_secret_name(name):
            fields[name] = "[SECRET]"
        else:
            fields[name] = masking.mask(value) if kind is str else masking.mask_value(value)
    return fields


def _sign(line: MutableMapping[str, Any], method: str) -> None:
    """Says how severe a line is, when it was written, and in which span."""
    line["level"] = _LEVEL_NAMES.get(method, method)
    line["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds")
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        line["trace_id"] = f"{context.trace_id:032x}"
        line["span_id"] = f"{context.span_id:016x}"


def _render_json(_: object, __: str, event: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Integers beyond 64 bits and lone surrogates: rare, and no reason to lose the line or the call.
        return json.dumps(event, default=str).encode()

"""Calling tools: the arguments are checked by the tool's schema, the time is limited, and failures are answers."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jsonschema_rs
import orjson
import structlog
from minion_errors import MinionError

from minion_gateway.agents.domain import BoundTool
from minion_gateway.runs.cleaning import clean_json, weight
from minion_gateway.tools.domain import Builtin, Ended, Invocation, Outcome, ToolFailedError, Whole
from minion_gateway.tools.metrics import ToolMetrics

MAXIMUM_OUTPUT = 96 * 1024
_SHOWN_OF_OUTPUT = 32 * 1024
# Up to here a result is looked at on the event loop; a larger one would stall it.
_SMALL_PARTS = 500
_SMALL_TEXT = 64 * 1024
_REMEMBERED_SCHEMAS = 2_000
_MAXIMUM_FAULTS = 5
_LISTED_BYTES = 8 * 1024
_log = structlog.get_logger()


class Toolbox:
    """The tools that can be called, by the name of the builtin."""

    def __init__(self, builtins: Mapping[str, Builtin], metrics: ToolMetrics) -> None:
        self._builtins = dict(builtins)
        self._metrics = metrics
        self._validators: OrderedDict[bytes, jsonschema_rs.Validator | str] = OrderedDict()

    async def call(self, tool: BoundTool, invocation: Invocation) -> Outcome:
        """Calls a tool. What goes wrong is told in the outcome, never raised, but for cancellation."""
        started = time.perf_counter_ns()

        def outcome(output: Any, ended: Ended, *, uncertain: bool = False) -> Outcome:
            nanoseconds = time.perf_counter_ns() - started
            self._metrics.called(tool.builtin, ended, nanoseconds / 1e9)
            return Outcome(output, ended is not Ended.OK, nanoseconds, uncertain)

        def failed_inside() -> Outcome:
            _log.exception("a tool failed inside", tool=tool.name, builtin=tool.builtin)
            return outcome("The tool failed inside; it may have taken effect.", Ended.ERROR, uncertain=True)

        if tool.needs_approval:
            return outcome("The tool needs a person's approval, and nobody can be asked: not called.", Ended.REFUSED)
        builtin = self._builtins.get(tool.builtin)
        if builtin is None:
            return outcome(f"This gateway has no builtin {tool.builtin!r}.", Ended.REFUSED)
        if faults := self._faults(tool, invocation.arguments):
            return outcome(f"The arguments don't fit the tool's schema: {faults}", Ended.REFUSED)
        limit = asyncio.timeout(tool.time_limit_seconds)
        try:
            async with limit:
                answered = await builtin(invocation)
            if _is_small(answered):
                shown, whole = _kept(answered)
            else:
                shown, whole = await asyncio.to_thread(_kept, answered)
            return replace(outcome(shown, Ended.OK), whole=whole)
        except asyncio.CancelledError:
            outcome(None, Ended.CANCELED)
            raise
        except ToolFailedError as fault:
            return outcome(str(fault), Ended.ERROR)
        except MinionError as fault:
            return outcome(f"{fault.reason}: {fault.message}", Ended.ERROR)
        except TimeoutError:
            if not limit.expired():
                # The tool's own, of whatever it waited for.
                return failed_inside()
            seconds = f"{tool.time_limit_seconds:g}"
            message = f"The tool took longer than {seconds} s; it may have taken effect."
            return outcome(message, Ended.TIMEOUT, uncertain=True)
        except Exception:  # noqa: BLE001 - whatever a tool does, its run goes on
            return failed_inside()

    def _faults(self, tool: BoundTool, arguments: Mapping[str, Any]) -> str:
        """Returns what is wrong with the arguments; nothing, when they are right."""
        validator = self._validator(tool.input_schema)
        if isinstance(validator, str):
            return validator
        if validator.is_valid(arguments):
            return ""
        # The library makes all faults before it gives the first: of 100,000 items of the wrong type for seconds.
        if len(orjson.dumps(arguments)) > _LISTED_BYTES:
            return "(all): they are too large for their faults to be listed"
        found = []
        for error in validator.iter_errors(arguments):
            path = "/".join(str(part) for part in error.instance_path)
            found.append(f"{path or '(all)'}: {error.message[:200]}")
            if len(found) == _MAXIMUM_FAULTS:
                break
        return "; ".join(found)

    def _validator(self, schema: dict[str, Any]) -> jsonschema_rs.Validator | str:
        key = hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).digest()
        known = self._validators.get(key)
        if known is None:
            try:
                known = jsonschema_rs.Draft202012Validator(schema, retriever=_refuse)
            except ValueError as fault:
                _log.error("a bound tool's schema can't be compiled", error=str(fault)[:500])
                known = "the schema itself is broken"
            self._validators[key] = known
            if len(self._validators) > _REMEMBERED_SCHEMAS:
                self._validators.popitem(last=False)
        return known


def _refuse(uri: str) -> Any:
    raise ValueError(f"a tool's schema may not refer to {uri[:200]}")


def _is_small(output: Any) -> bool:
    """Whether a result has few parts and little text, without looking at all of it."""
    parts, text = 0, 0
    waiting = [output]
    while waiting:
        part = waiting.pop()
        parts += 1
        match part:
            case str():
                text += len(part)
            case Mapping():
                parts += len(part)
                if parts <= _SMALL_PARTS:
                    waiting += [*part, *part.values()]
            case list() | tuple():
                parts += len(part)
                if parts <= _SMALL_PARTS:
                    waiting += part
            case _:
                pass
        if parts > _SMALL_PARTS or text > _SMALL_TEXT:
            return False
    return True


def _kept(output: Any) -> tuple[Any, Whole | None]:
    """Makes a result fit to be kept; of one that is too large, an excerpt of its text, and all of it apart."""
    cleaned = clean_json(output)
    if weight(cleaned) <= MAXIMUM_OUTPUT:
        return cleaned, None
    if isinstance(cleaned, str):
        text, media_type = cleaned, "text/plain; charset=utf-8"
    else:
        text, media_type = orjson.dumps(cleaned).decode(), "application/json"
    data = text.encode()
    whole = Whole(data, media_type, hashlib.sha256(data).hexdigest())
    # 32 KiB of bytes, not of characters: what is kept of a result in a message is bounded in bytes.
    shown = data[:_SHOWN_OF_OUTPUT].decode(errors="ignore")
    return f"{shown}…", whole

"""Calling tools: the arguments are checked by the tool's schema, the time is limited, and failures are answers."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import orjson
import structlog
from minion_errors import MinionError

from minion_gateway.agents.domain import BoundTool
from minion_gateway.runs.cleaning import clean_json, weight
from minion_gateway.tools.domain import Builtin, Invocation, Outcome, ToolFailedError

MAXIMUM_OUTPUT = 96 * 1024
_SHOWN_OF_OUTPUT = 32 * 1024
_REMEMBERED_SCHEMAS = 2_000
_MAXIMUM_FAULTS = 5
_log = structlog.get_logger()


class Toolbox:
    """The tools that can be called, by the name of the builtin."""

    def __init__(self, builtins: Mapping[str, Builtin]) -> None:
        self._builtins = dict(builtins)
        self._validators: OrderedDict[bytes, jsonschema_rs.Validator | str] = OrderedDict()

    async def call(self, tool: BoundTool, invocation: Invocation) -> Outcome:
        """Calls a tool. What goes wrong is told in the outcome, never raised, but for cancellation."""
        started = time.perf_counter_ns()

        def outcome(output: Any, *, is_error: bool, uncertain: bool = False) -> Outcome:
            return Outcome(output, is_error, time.perf_counter_ns() - started, uncertain)

        builtin = self._builtins.get(tool.builtin)
        if builtin is None:
            return outcome(f"This gateway has no builtin {tool.builtin!r}.", is_error=True)
        if faults := self._faults(tool, invocation.arguments):
            return outcome(f"The arguments don't fit the tool's schema: {faults}", is_error=True)
        limit = asyncio.timeout(tool.time_limit_seconds)
        try:
            async with limit:
                return outcome(_kept(await builtin(invocation)), is_error=False)
        except ToolFailedError as fault:
            return outcome(str(fault), is_error=True)
        except MinionError as fault:
            return outcome(f"{fault.reason}: {fault.message}", is_error=True)
        except TimeoutError:
            if not limit.expired():
                raise
            seconds = f"{tool.time_limit_seconds:g}"
            message = f"The tool took longer than {seconds} s; it may have taken effect."
            return outcome(message, is_error=True, uncertain=True)
        except Exception:  # noqa: BLE001 - whatever a tool does, its run goes on
            _log.exception("a tool failed inside", tool=tool.name, builtin=tool.builtin)
            return outcome("The tool failed inside; it may have taken effect.", is_error=True, uncertain=True)

    def _faults(self, tool: BoundTool, arguments: Mapping[str, Any]) -> str:
        """Returns what is wrong with the arguments; nothing, when they are right."""
        validator = self._validator(tool.input_schema)
        if isinstance(validator, str):
            return validator
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


def _kept(output: Any) -> Any:
    """Makes a result fit to be kept; one that is too large becomes the beginning of its text, and says so."""
    cleaned = clean_json(output)
    if weight(cleaned) <= MAXIMUM_OUTPUT:
        return cleaned
    text = cleaned if isinstance(cleaned, str) else orjson.dumps(cleaned).decode()
    return f"{text[:_SHOWN_OF_OUTPUT]}… (cut: {len(text)} characters)"

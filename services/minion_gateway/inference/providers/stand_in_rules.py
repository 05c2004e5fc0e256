"""The rules by which the local stand-in picks tools: words of the user's message against the tools it was given.

A tool is known by its name alone (`clock`, `calculator`, `remember`, `recall`, `workspace`, or a longer name that ends
in one), and its arguments are filled in by its own schema.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minion_gateway.inference.domain import ToolSpec

_CLOCK = re.compile(r"\b(what time|time is it|the time|clock|what day|what date|today'?s date|which day)\b", re.I)
_EXPRESSION = re.compile(r"\(*\s*-?\d+(?:\.\d+)?(?:\s*(?:\*\*|[-+*/^%x×÷])\s*\(*\s*-?\d+(?:\.\d+)?\s*\)*)+")  # noqa: RUF001
_SPOKEN = {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/"}
# A sentence's rest; a full stop inside a word, as in an address or a number, does not end it.
_REST = r"(?:[^.!?\n]|[.!?](?=\w))"
_TELLS = re.compile(
    rf"\b(?:please )?(?:remember|note|keep in mind)(?: that)?[:,]? (?P<order>{_REST}+)"
    r"|(?P<own>\b(?:my (?:[a-z]+ ){1,3}is\b|i(?:'m| am) (?:called|allergic|vegetarian|vegan|from|a|an)\b"
    rf"|i (?:really |also )?(?:like|love|prefer|hate|dislike|live|work|speak|have|own)\b|call me\b){_REST}*)",
    re.I,
)
_ASKS = re.compile(
    r"\bwhat do you (?:know|remember)|\bwho am i\b|\bwhat(?:'s| is| are| was) my\b|\bwhere do i\b|\bwhat do i\b"
    r"|\bwhich .+ do i\b|\bdo i (?:like|love|prefer|have|own)\b|\bwhen is my\b|\bdo you (?:remember|know) (?:me|my)\b"
    r"|\brecall\b|\bremind me\b",
    re.I,
)
_NOTES = re.compile(r"\b(workspace|scratch ?pad|working memory)\b", re.I)
_ASSIGNMENT = re.compile(
    r"\b(?:set|put|store|save|write)\s+[\"']?(?P<key>[\w.-]+)[\"']?\s*(?:=|to|as|:)\s*[\"']?(?P<value>[^\"'\n]+?)[\"']?"
    r"(?:\s+(?:in|into|to) (?:the |my )?(?:workspace|scratch ?pad|working memory))?[.!]?$",
    re.I,
)
_LOOKUP = re.compile(
    r"\b(?:get|read|show|what is)\s+[\"']?(?P<key>[\w.-]+)[\"']?\s+(?:in|from) (?:the |my )?workspace", re.I
)


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A tool and the arguments it shall be called with."""

    tool: str
    arguments: Mapping[str, Any]


def plan(text: str, tools: Sequence[ToolSpec], *, has_memories: bool) -> list[PlannedCall]:
    """Returns the calls that the message asks for, each tool at most once; none where no rule fits.

    With memories in the context already, nothing is recalled a second time.
    """
    rules: list[tuple[str, Callable[[str, ToolSpec], dict[str, Any] | None]]] = [
        ("clock", _clock),
        ("calculator", _calculator),
        ("workspace", _workspace),
        ("remember", _remember),
    ]
    if not has_memories:
        rules.append(("recall", _recall))
    calls = []
    for kind, rule in rules:
        tool = find(tools, kind)
        arguments = rule(text, tool) if tool else None
        if tool and arguments is not None:
            calls.append(PlannedCall(tool.name, arguments))
    return calls


def find(tools: Sequence[ToolSpec], kind: str) -> ToolSpec | None:
    """Returns the tool of a kind, by its name."""
    return next((tool for tool in tools if is_kind(tool.name, kind)), None)


def is_kind(name: str, kind: str) -> bool:
    """Whether a tool's name is the kind's, or ends in it after a separator."""
    return re.split(r"[._\-/:]", name.lower())[-1] == kind or name.lower() == kind


def told(text: str) -> str | None:
    """Returns what the user says of themselves, or asks to be kept; None where it is neither."""
    if _ASKS.search(text) or text.rstrip().endswith("?"):
        # A question may hold such words without telling anything.
        match = re.search(r"\bremember that (?P<order>[^.!?\n]+)", text, re.I)
        return match["order"].strip() if match else None
    match = _TELLS.search(text)
    return (match["order"] or match["own"]).strip() if match else None


def asks_of_the_user(text: str) -> bool:
    """Whether the message asks what is known of the user."""
    return _ASKS.search(text) is not None


def expression(text: str) -> str | None:
    """Returns the arithmetic in the message; None where there is none."""
    for spoken, sign in _SPOKEN.items():
        text = re.sub(rf"(?<=[\d)])\s+{spoken}\s+(?=[\d(-])", f" {sign} ", text, flags=re.I)
    match = _EXPRESSION.search(text)
    if not match:
        return None
    found = match[0].strip()
    # Dates and ranges look alike ("2024-05-01", "3-4"): a bare minus between digits is not enough.
    if re.fullmatch(r"\d+(?:-\d+)+", found):
        return None
    return re.sub(r"(?<=\d)\s*[x×]\s*(?=\d)", " * ", found).replace("÷", "/").replace("^", "**")  # noqa: RUF001


def _clock(text: str, tool: ToolSpec) -> dict[str, Any] | None:
    return filled(tool, {}, text) if _CLOCK.search(text) else None


def _calculator(text: str, tool: ToolSpec) -> dict[str, Any] | None:
    found = expression(text)
    return filled(tool, {"expression": found, "input": found}, text) if found else None


def _remember(text: str, tool: ToolSpec) -> dict[str, Any] | None:
    fact = told(text)
    known = {"content": fact, "text": fact, "fact": fact, "memory": fact}
    return filled(tool, known, text) if fact else None


def _recall(text: str, tool: ToolSpec) -> dict[str, Any] | None:
    return filled(tool, {"query": text, "text": text}, text) if asks_of_the_user(text) else None


def _workspace(text: str, tool: ToolSpec) -> dict[str, Any] | None:
    if not _NOTES.search(text):
        return None
    if match := _ASSIGNMENT.search(text):
        known: dict[str, Any] = {"key": match["key"], "value": match["value"].strip()}
        verbs: tuple[str, ...] = ("set", "put", "write")
    elif match := _LOOKUP.search(text):
        known, verbs = {"key": match["key"]}, ("get", "read")
    else:
        known, verbs = {}, ("list", "get", "read")
    for field in ("operation", "action", "command", "op"):
        offered = (tool.parameters.get("properties") or {}).get(field, {}).get("enum") or ()
        known[field] = next((verb for verb in verbs if verb in offered), verbs[0])
    return filled(tool, known, text)


def filled(tool: ToolSpec, known: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Returns arguments by the tool's schema: what is known, and for other required fields the least that fits."""
    properties: Mapping[str, Any] = tool.parameters.get("properties") or {}
    required = set(tool.parameters.get("required") or ())
    arguments: dict[str, Any] = {}
    for name, schema in properties.items():
        if known.get(name) is not None:
            arguments[name] = known[name]
        elif name in required:
            arguments[name] = instance(schema, text)
    return arguments


def instance(schema: Mapping[str, Any], text: str) -> Any:
    """Returns a small value of a JSON Schema, with the text wherever a free string is asked for."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "default" in schema:
        return schema["default"]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind if isinstance(kind, str) else kind[0]:
        case "object":
            required = set(schema.get("required") or ())
            properties = schema.get("properties") or {}
            return {name: instance(inner, text) for name, inner in properties.items() if name in required}
        case "array":
            return [instance(schema.get("items") or {}, text)] * int(schema.get("minItems", 0))
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return text[: int(schema.get("maxLength", len(text)))]

"""Agents and tools as files that live in git: YAML documents with the contract's field names."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer
import yaml
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from minion.registry.v1 import agent_pb2, tool_pb2

from minion_cli import output

# What a file says of an agent, and of a tool; the service decides the rest.
AGENT_FIELDS: Final = (
    *("name", "display_name", "description", "behavior_type", "instructions", "llm", "capabilities", "behavior"),
    *("metadata", "labels"),
)
TOOL_FIELDS: Final = tuple(
    name
    for name in tool_pb2.Tool.DESCRIPTOR.fields_by_name
    if name not in ("tool_id", "version", "digest", "status", "status_note", "etag", "create_time", "update_time")
)
_WISHES: Final = {
    "draft": agent_pb2.AGENT_STATUS_DRAFT,
    "active": agent_pb2.AGENT_STATUS_ACTIVE,
    "inactive": agent_pb2.AGENT_STATUS_INACTIVE,
}
# Messages that stand for JSON values or texts: their fields are not the file's.
_WELL_KNOWN: Final = "google.protobuf."


@dataclass(frozen=True, slots=True)
class AgentDocument:
    """What a file says of an agent; `status` 0 and `tools` None leave those as they are."""

    place: str
    agent: agent_pb2.Agent
    status: int
    tools: Mapping[str, Struct] | None


@dataclass(frozen=True, slots=True)
class ToolDocument:
    """What a file says of a tool."""

    place: str
    tool: tool_pb2.Tool


@dataclass(frozen=True, slots=True)
class Documents:
    """What files say, in their order."""

    tools: list[ToolDocument] = field(default_factory=list)
    agents: list[AgentDocument] = field(default_factory=list)


def read(paths: Sequence[Path]) -> Documents:
    """Reads all documents of files, `-` being standard input. Anything that is none is a usage error with its place."""
    documents, seen = Documents(), set[tuple[str, str]]()
    for path in paths:
        for number, content in enumerate(_contents(path), start=1):
            place = f"{path}, document {number}"
            if content is None:
                continue
            if not isinstance(content, dict) or content.get("kind") not in ("Agent", "Tool"):
                raise _refused(place, "needs a kind, which is Agent or Tool")
            kind = content.pop("kind")
            if kind == "Tool":
                tool = ToolDocument(place, _parsed(place, content, tool_pb2.Tool(), TOOL_FIELDS))
                documents.tools.append(tool)
                name = tool.tool.name
            else:
                agent = _agent(place, content)
                documents.agents.append(agent)
                name = agent.agent.name
            if not name:
                raise _refused(place, "needs a name")
            if (kind, name) in seen:
                raise _refused(place, f"{kind} {name} is described twice")
            seen.add((kind, name))
    return documents


def agent_document(agent: agent_pb2.Agent, tools: Iterable[agent_pb2.AgentTool]) -> dict[str, Any]:
    """Writes an agent with its bindings as a document that `read` reads."""
    contents = only(agent, AGENT_FIELDS)
    document: dict[str, Any] = {"kind": "Agent", **plain(contents)}
    # Archived is nothing that a file can wish for.
    if agent.status in _WISHES.values():
        document["status"] = output.enum_text(agent_pb2.AgentStatus, agent.status)
    document["tools"] = [
        {"name": bound.tool.name}
        | ({"configuration": _by_name(output.plain(bound.configuration))} if bound.configuration.fields else {})
        for bound in tools
    ]
    return document


def tool_document(tool: tool_pb2.Tool) -> dict[str, Any]:
    """Writes a tool as a document that `read` reads."""
    document = {"kind": "Tool", **plain(only(tool, TOOL_FIELDS))}
    if tool.cost_per_call_nanos:
        document["cost_per_call_nanos"] = tool.cost_per_call_nanos
    return document


def write(documents: Sequence[Mapping[str, Any]]) -> str:
    """Writes documents as YAML; texts of several lines stand as they are, so that git compares their lines."""
    text: str = yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, explicit_start=len(documents) > 1, width=120
    )
    return text


def plain(message: Message) -> dict[str, Any]:
    """Gives a message as a file has it: without what says nothing, and what is below a field by name.

    The order of a map's entries on the wire is another one each time.
    """
    return {name: _by_name(value) for name, value in output.as_plain(pruned(message)).items()}


def only(message: Any, fields: Iterable[str]) -> Any:
    """Copies some fields of a message."""
    copied = type(message)()
    for name in fields:
        descriptor = message.DESCRIPTOR.fields_by_name[name]
        if descriptor.is_repeated or not descriptor.has_presence or message.HasField(name):
            part = type(message)()
            part.CopyFrom(message)
            for other, _ in part.ListFields():
                if other.name != name:
                    part.ClearField(other.name)
            copied.MergeFrom(part)
    return copied


def pruned(message: Any) -> Any:
    """Copies a message without the messages in it that say nothing, so that equal ones are equal."""
    copied = type(message)()
    copied.CopyFrom(message)
    for descriptor, value in copied.ListFields():
        if descriptor.message_type is None or descriptor.is_repeated:
            continue
        if not descriptor.message_type.full_name.startswith(_WELL_KNOWN):
            value.CopyFrom(pruned(value))
        if not value.ListFields():
            copied.ClearField(descriptor.name)
    return copied


def _by_name(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _by_name(value[name]) for name in sorted(value)}
    return [_by_name(item) for item in value] if isinstance(value, list) else value


def _contents(path: Path) -> list[Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        return list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise _refused(str(path), output.one_line(str(fault))) from None


def _agent(place: str, content: dict[str, Any]) -> AgentDocument:
    status = content.pop("status", None)
    if status is not None and status not in _WISHES:
        raise _refused(place, f"status is none of {', '.join(_WISHES)}")
    tools = _bindings(place, content.pop("tools")) if "tools" in content else None
    agent = _parsed(place, content, agent_pb2.Agent(), AGENT_FIELDS)
    # Said twice is said once: so the service keeps it.
    capabilities = list(dict.fromkeys(agent.capabilities))
    del agent.capabilities[:]
    agent.capabilities.extend(capabilities)
    return AgentDocument(place, agent, _WISHES[status] if status else 0, tools)


def _bindings(place: str, content: Any) -> dict[str, Struct]:
    bindings: dict[str, Struct] = {}
    for index, item in enumerate(content if isinstance(content, list) else [content]):
        at = f"tools[{index}]"
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise _refused(place, f"{at} needs a name, and may have a configuration")
        unknown = [f"{at}.{name}" for name in item if name not in ("name", "configuration")]
        if unknown:
            raise _refused(place, f"{', '.join(unknown)}: no such field")
        if item["name"] in bindings:
            raise _refused(place, f"{at}: {item['name']} is bound twice")
        try:
            bindings[item["name"]] = ParseDict(item.get("configuration") or {}, Struct())
        except (ParseError, TypeError, ValueError, AttributeError) as fault:
            raise _refused(place, f"{at}.configuration: {output.one_line(str(fault))}") from None
    return bindings


def _parsed(place: str, content: dict[str, Any], message: Any, fields: Sequence[str]) -> Any:
    unknown = [str(name) for name in content if name not in fields]
    for name in fields:
        if name in content:
            unknown += _unknown(content[name], message.DESCRIPTOR.fields_by_name[name], name)
    if unknown:
        raise _refused(place, f"{', '.join(unknown)}: no such field")
    try:
        return ParseDict(content, message)
    except (ParseError, TypeError, ValueError, AttributeError) as fault:
        raise _refused(place, output.one_line(str(fault))) from None


def _unknown(value: Any, descriptor: FieldDescriptor, place: str) -> Iterator[str]:
    """Yields the places of fields that the contract doesn't have."""
    kind: Descriptor | None = descriptor.message_type
    if kind is None or kind.full_name.startswith(_WELL_KNOWN) or kind.GetOptions().map_entry:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, descriptor, f"{place}[{index}]")
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in kind.fields_by_name:
                yield from _unknown(inner, kind.fields_by_name[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}"


def _refused(place: str, fault: str) -> typer.BadParameter:
    return typer.BadParameter(f"{place}: {fault}.", param_hint="--file")


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and lists inside of what they belong to."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)

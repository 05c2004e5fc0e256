"""Values that stand on the command line."""

import json

import typer
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct

from minion_cli import output


def labels(pairs: list[str]) -> dict[str, str]:
    """Reads key=value labels; anything else is a usage error."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not key=value.", param_hint="--label")
        found[key] = value
    return found


def json_object(text: str, parameter: str) -> Struct:
    """Reads a JSON object that stands on the command line; anything else is a usage error."""
    try:
        content = json.loads(text)
        return ParseDict(content, Struct())
    except (ValueError, ParseError, AttributeError) as fault:
        raise typer.BadParameter(f"is no JSON object: {output.one_line(str(fault))}", param_hint=parameter) from None

"""Checks what a tool says of itself: its schemas, and that its examples and default settings keep to them."""

from collections.abc import Iterator

from minion_errors import InvalidArgument, Violation

from minion_registry import json_schema, json_values
from minion_registry.canonical import same
from minion_registry.json_values import Checkers
from minion_registry.tools.domain import ToolContents

_MOST_FAULTS = 20
# What a binding can still add.
_LEFT_TO_BINDINGS = frozenset({"required", "dependentRequired", "minProperties"})


def check(checkers: Checkers, contents: ToolContents, before: ToolContents | None) -> None:
    """Raises InvalidArgument (TOOL_SCHEMA_INVALID, TOOL_EXAMPLE_INVALID), which says where, unless all is in order.

    What is as it was `before` isn't looked at again. Takes up to some tenths of a second.
    """
    if before is None or not same(contents.input_schema, before.input_schema):
        json_schema.check(contents.input_schema, "tool.input_schema")
    output, configuration = contents.output_schema, contents.configuration_schema
    if output is not None and (before is None or not same(output, before.output_schema)):
        json_schema.check(output, "tool.output_schema", of_object=False)
    if configuration is not None and (before is None or not same(configuration, before.configuration_schema)):
        json_schema.check(configuration, "tool.configuration_schema")
    faults = []
    for fault in _faults(checkers, contents, before):
        faults.append(fault)
        if len(faults) == _MOST_FAULTS:
            break
    if faults:
        listed = "; ".join(f"{fault.field} {fault.description}" for fault in faults[:3])
        raise InvalidArgument(
            f"An example or the default configuration doesn't keep to its schema: {listed}.",
            reason="TOOL_EXAMPLE_INVALID",
            violations=faults,
        )


def _faults(checkers: Checkers, contents: ToolContents, before: ToolContents | None) -> Iterator[Violation]:
    is_new = before is None or not same(_examples(contents), _examples(before))
    for index, example in enumerate(contents.examples if is_new else ()):
        field = f"tool.examples[{index}].arguments"
        faults = checkers.of(contents.input_schema).faults(example.arguments, field)
        yield from json_values.violations(faults, field)
        if example.shows_output and contents.output_schema is not None:
            field = f"tool.examples[{index}].output"
            faults = checkers.of(contents.output_schema).faults(example.output, field)
            yield from json_values.violations(faults, field)
    is_set_anew = before is None or not same(_settings(contents), _settings(before))
    if contents.configuration_schema is not None and is_set_anew:
        field = "tool.default_configuration"
        faults = checkers.of(contents.configuration_schema).faults(contents.default_configuration, field)
        yield from json_values.violations([fault for fault in faults if fault.keyword not in _LEFT_TO_BINDINGS], field)


def _examples(contents: ToolContents) -> tuple[object, ...]:
    return contents.input_schema, contents.output_schema, contents.examples


def _settings(contents: ToolContents) -> tuple[object, ...]:
    return contents.configuration_schema, contents.default_configuration

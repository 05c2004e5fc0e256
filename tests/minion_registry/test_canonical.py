"""What says the same and what doesn't, where Python takes true for 1 and false for 0."""

from dataclasses import replace
from typing import Any

import grpc
import pytest
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_registry.canonical import canonical, same
from minion_registry.tools.domain import ToolExample
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase

from tests.minion_registry.stage import Caller, struct
from tests.minion_registry.test_domain import CLOCK

APART = [
    pytest.param({"dry_run": True}, {"dry_run": 1}, id="true"),
    pytest.param({"dry_run": False}, {"dry_run": 0}, id="false"),
    pytest.param({"in": [{"const": True}]}, {"in": [{"const": 1}]}, id="below"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_true_is_not_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one == other
    assert not same(one, other)
    for name in ("default_configuration", "input_schema", "output_schema", "configuration_schema"):
        before, after = (replace(CLOCK, **{name: value}) for value in (one, other))  # type: ignore[arg-type]
        assert not after.pins_the_same_as(before), name
        assert after.digest() != before.digest(), name
    assert not same((ToolExample("", one),), (ToolExample("", other),))


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (0, -0.0), (1e18, 10**18), ([1], (1.0,)), (1e300, 10**300)])
def test_a_number_is_the_same_however_it_is_written(one: Any, other: Any) -> None:
    assert same({"a": one}, {"a": other})
    assert replace(CLOCK, default_configuration={"a": one}).digest() == (
        replace(CLOCK, default_configuration={"a": other}).digest()
    )


def test_canonical_json_has_one_form() -> None:
    assert canonical({"b": [1.0, 1.5, True, None], "a": "é"}) == '{"a":"é","b":[1,1.5,true,null]}'.encode()


@pytest.mark.parametrize(("one", "other"), APART)
@pytest.mark.parametrize("field", ["default_configuration", "input_schema"])
async def test_a_pin_is_not_passed_by_a_value_that_python_takes_for_the_same(
    tenant: Caller, postgres: ClonedDatabase, field: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    if field == "input_schema":
        one, other = ({"type": "object", "const": value} for value in (one, other))
    agent = await tenant.create()
    made = await tenant.register(**{field: struct(one)})
    await tenant.bind(agent.agent_id, made.tool_id)
    request = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=made.tool_id, **{field: struct(other)}))  # type: ignore[arg-type]
    request.update_mask.paths.append(field)
    changed = await tenant.tools.UpdateTool(request)
    assert changed.tool.digest != made.digest
    assert changed.blocked_binding_count == 1
    resolved = await tenant.agents.ResolveAgent(agent_service_pb2.ResolveAgentRequest(agent_id=agent.agent_id))
    assert [bound.state for bound in resolved.resolved_agent.tools] == [agent_pb2.BINDING_STATE_DIGEST_CHANGED]
    async with await postgres.connect("registry", "owner") as owner:
        told = await owner.fetch_one(
            "SELECT payload FROM registry.outbox WHERE tenant_id = $1 AND payload ->> 'name' = 'tool.update'",
            tenant.tenant_id,
        )
    assert told is not None
    assert told["payload"]["input"]["fields"] == [field]


async def test_an_example_and_settings_are_checked_anew_by_what_they_say(tenant: Caller) -> None:
    schema = struct({"type": "object", "properties": {"a": {"type": "boolean"}}})
    made = await tenant.register(
        input_schema=schema,
        configuration_schema=schema,
        default_configuration=struct({"a": True}),
        examples=[tool_pb2.ToolExample(arguments=struct({"a": True}))],
    )
    for field, value in (
        ("default_configuration", struct({"a": 1})),
        ("examples", [tool_pb2.ToolExample(arguments=struct({"a": 1}))]),
    ):
        request = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=made.tool_id, **{field: value}))  # type: ignore[arg-type]
        request.update_mask.paths.append(field)
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_EXAMPLE_INVALID"):
            await tenant.tools.UpdateTool(request)


async def test_a_schema_is_checked_anew_by_what_it_says(tenant: Caller) -> None:
    made = await tenant.register(input_schema=struct({"type": "object", "minProperties": 1}))
    request = pb.UpdateToolRequest(
        tool=tool_pb2.Tool(tool_id=made.tool_id, input_schema=struct({"type": "object", "minProperties": True}))
    )
    request.update_mask.paths.append("input_schema")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID"):
        await tenant.tools.UpdateTool(request)

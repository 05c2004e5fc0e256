"""Why a tool is deprecated or retired stays readable."""

from minion.registry.v1 import tool_service_pb2 as pb

from tests.minion_registry.stage import Caller


async def test_a_tool_retired_without_a_note_keeps_what_its_deprecation_said(tenant: Caller) -> None:
    told: list[str] = []
    for note in ("", "Nobody asks any more."):
        tool = await tenant.register(name=f"t{len(told)}")
        await tenant.tools.DeprecateTool(pb.DeprecateToolRequest(tool_id=tool.tool_id, note="Use forecast."))
        retired = await tenant.tools.RetireTool(pb.RetireToolRequest(tool_id=tool.tool_id, note=note))
        told.append(retired.tool.status_note)
    assert told == ["Use forecast.", "Nobody asks any more."]

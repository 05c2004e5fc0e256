"""What is large is written off the event loop: others are served meanwhile."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_service_pb2
from minion_grpc.wire import to_struct
from minion_testing.stalls import share_off_loop

from tests.minion_registry.stage import Caller

# 63 KB of JSON, of which each value is three bytes: nothing costs more to write.
_DENSE = to_struct({"type": "object", "examples": [[] for _ in range(21_000)]})


async def _tool(caller: Caller) -> str:
    tool = await caller.register(input_schema=_DENSE, output_schema=_DENSE, configuration_schema=_DENSE)
    return tool.tool_id


async def _agent(caller: Caller) -> str:
    return (await caller.create(llm=agent_pb2.LlmConfig(response_schema=_DENSE))).agent_id


async def _bound(caller: Caller) -> Callable[[], Awaitable[Any]]:
    agent, tool = await caller.create(), await _tool(caller)
    return lambda: caller.bind(agent.agent_id, tool)


async def _deprecated(caller: Caller) -> Callable[[], Awaitable[Any]]:
    # Another one at each try: none is deprecated twice.
    tools = [await _tool(caller) for _ in range(3)]
    return lambda: caller.tools.DeprecateTool(tool_service_pb2.DeprecateToolRequest(tool_id=tools.pop()))


async def _retired(caller: Caller) -> Callable[[], Awaitable[Any]]:
    tools = [await _tool(caller) for _ in range(3)]
    return lambda: caller.tools.RetireTool(tool_service_pb2.RetireToolRequest(tool_id=tools.pop()))


async def _got(caller: Caller) -> Callable[[], Awaitable[Any]]:
    agent_id = await _agent(caller)
    return lambda: caller.get(agent_id)


async def _activated(caller: Caller) -> Callable[[], Awaitable[Any]]:
    agents = [await _agent(caller) for _ in range(3)]
    return lambda: caller.activate(agents.pop())


async def _resolved(caller: Caller) -> Callable[[], Awaitable[Any]]:
    request = agent_service_pb2.ResolveAgentRequest(agent_id=await _agent(caller))
    return lambda: caller.agents.ResolveAgent(request)


@pytest.mark.parametrize("prepare", [_bound, _deprecated, _retired, _got, _activated, _resolved])
async def test_what_is_large_is_written_off_the_loop(
    tenant: Caller, prepare: Callable[[Caller], Awaitable[Callable[[], Awaitable[Any]]]]
) -> None:
    # 0.02 where it is written on the loop, 0.3 and more off it; gRPC writes and reads its bytes there in any case.
    assert await share_off_loop(await prepare(tenant), enough=0.1) > 0.1

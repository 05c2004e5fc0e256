"""Serves minion.gateway.v1.RunService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from minion.gateway.v1 import run_service_pb2 as pb
from minion.gateway.v1 import run_service_pb2_grpc
from minion_grpc import wire

from minion_gateway.runs import convert
from minion_gateway.runs.service import Runs

Context = grpc.aio.ServicerContext[Any, Any]


class RunServicer(run_service_pb2_grpc.RunServiceServicer):
    """The turns of agents, for clients."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def CreateRun(self, request: pb.CreateRunRequest, context: Context) -> pb.CreateRunResponse:
        """Runs one turn and waits for its end."""
        run = await self._runs.create(convert.new_run_from_proto(request))
        return pb.CreateRunResponse(run=convert.run_to_proto(run))

    async def StreamRun(self, request: pb.StreamRunRequest, context: Context) -> AsyncIterator[pb.StreamRunResponse]:
        """Runs one turn and streams its events."""
        async with aclosing(self._runs.stream(convert.new_run_from_proto(request))) as events:
            async for event in events:
                yield pb.StreamRunResponse(event=convert.event_to_proto(event))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Returns a run."""
        run = await self._runs.get(convert.run_id_from_proto(request))
        return pb.GetRunResponse(run=convert.run_to_proto(run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """Lists runs."""
        asked = convert.list_from_proto(request)
        page = await self._runs.list(asked.wanted, asked.page_size, asked.page_token)
        size = wire.json_bytes(run.metadata for run in page.runs)
        return await wire.off_loop(convert.page_to_proto, page, size)

    async def ListRunSteps(self, request: pb.ListRunStepsRequest, context: Context) -> pb.ListRunStepsResponse:
        """Lists the steps of a run."""
        page = await self._runs.steps(*convert.steps_from_proto(request))
        return pb.ListRunStepsResponse(
            steps=[convert.step_to_proto(step) for step in page.steps], next_page_token=page.next_page_token
        )

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        """Streams a run's events after a sequence."""
        run_id, after = convert.watch_from_proto(request)
        async with aclosing(self._runs.watch(run_id, after)) as events:
            async for event in events:
                yield pb.WatchRunResponse(event=convert.event_to_proto(event))

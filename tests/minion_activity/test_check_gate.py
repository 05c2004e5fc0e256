"""CheckGate: agreed, and served by no activity service of this release."""

import grpc
import pytest
from minion.activity.v1 import evaluation_service_pb2
from minion.activity.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_activity.stage import new_id


async def test_evaluations_are_not_served_yet(service: Served) -> None:
    request = evaluation_service_pb2.CheckGateRequest(agent_id=new_id(), agent_revision=1)
    async with service.acting(uuid7(), service="registry", principal=None) as channel:
        # Whoever asks takes this for "not passed".
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EvaluationServiceStub(channel).CheckGate(request)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

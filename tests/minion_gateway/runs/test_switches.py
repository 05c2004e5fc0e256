"""Features that a deployment has switched off."""

import grpc
from minion.gateway.v1 import inference_pb2, inference_service_pb2, run_service_pb2
from minion.gateway.v1.inference_service_pb2_grpc import InferenceServiceStub
from minion.gateway.v1.run_service_pb2_grpc import RunServiceStub
from minion_testing.errors import refused

from tests.minion_gateway.runs.stage import Client, Stage


async def test_streaming_that_is_off_is_unimplemented_with_the_reason(stage: Stage) -> None:
    async with stage.second_gateway(streaming_enabled=False) as gateway, Client(stage, gateway) as client:
        channel = client.channel("gateway")
        async with refused(grpc.StatusCode.UNIMPLEMENTED, "FEATURE_DISABLED") as refusal:
            async for _ in RunServiceStub(channel).StreamRun(run_service_pb2.StreamRunRequest()):
                pass
        assert refusal.metadata["setting"] == "MINION_GATEWAY_STREAMING_ENABLED"
        async with refused(grpc.StatusCode.UNIMPLEMENTED, "FEATURE_DISABLED"):
            async for _ in InferenceServiceStub(channel).StreamComplete(inference_service_pb2.StreamCompleteRequest()):
                pass
        # What needs no stream goes on.
        models = await InferenceServiceStub(channel).ListModels(
            inference_service_pb2.ListModelsRequest(kind=inference_pb2.MODEL_KIND_CHAT)
        )
        assert models.models

"""Serves minion.gateway.v1.InferenceService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from minion.gateway.v1 import inference_service_pb2 as pb
from minion.gateway.v1 import inference_service_pb2_grpc
from minion_grpc import wire

from minion_gateway.inference import convert
from minion_gateway.inference.domain import Finished
from minion_gateway.inference.service import RecordedInference

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """The plain way to the models, for clients."""

    def __init__(self, inference: RecordedInference) -> None:
        self._inference = inference

    async def Complete(self, request: pb.CompleteRequest, context: Context) -> pb.CompleteResponse:
        """Asks a model and returns its whole answer."""
        question = await wire.off_loop(convert.completion_from_proto, request, convert.request_bytes(request))
        completion = await self._inference.complete(question)
        size = convert.answer_bytes(Finished(completion))
        return pb.CompleteResponse(completion=await wire.off_loop(convert.completion_to_proto, completion, size))

    async def StreamComplete(
        self, request: pb.StreamCompleteRequest, context: Context
    ) -> AsyncIterator[pb.StreamCompleteResponse]:
        """Asks a model and streams its answer."""
        question = await wire.off_loop(convert.completion_from_proto, request, convert.request_bytes(request))
        async with aclosing(self._inference.stream(question)) as deltas:
            async for delta in deltas:
                if event := await wire.off_loop(convert.delta_to_proto, delta, convert.answer_bytes(delta)):
                    yield event

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """Makes vectors of texts."""
        texts, model = convert.texts_from_proto(request)
        embeddings = await self._inference.embed(texts, model)
        return await wire.off_loop(convert.embeddings_to_proto, embeddings, convert.vector_bytes(embeddings))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists the models that can be asked."""
        page = convert.page_from_proto(request)
        models = self._inference.models(page.kind, after=page.after, limit=page.limit + 1)
        return convert.page_to_proto(request, models, page.limit)

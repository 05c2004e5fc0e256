"""Serves minion.memory.v1.EmbeddingModelService."""

from typing import Any

import grpc
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion.memory.v1.embedding_model_service_pb2_grpc import EmbeddingModelServiceServicer

from minion_memory.embedding_models import convert
from minion_memory.embedding_models.service import ModelCatalogue
from minion_memory.reembedding import convert as reembedding_convert
from minion_memory.reembedding.service import Reembeddings

Context = grpc.aio.ServicerContext[Any, Any]


class EmbeddingModelServicer(EmbeddingModelServiceServicer):
    """The models that vectors are made with, and the moves from one to another."""

    def __init__(self, catalogue: ModelCatalogue, reembeddings: Reembeddings) -> None:
        self._catalogue = catalogue
        self._reembeddings = reembeddings

    async def RegisterEmbeddingModel(
        self, request: pb.RegisterEmbeddingModelRequest, context: Context
    ) -> pb.RegisterEmbeddingModelResponse:
        """Registers a model."""
        registered = await self._catalogue.register(convert.register_from_proto(request))
        return pb.RegisterEmbeddingModelResponse(embedding_model=convert.model_to_proto(registered))

    async def ListEmbeddingModels(
        self, request: pb.ListEmbeddingModelsRequest, context: Context
    ) -> pb.ListEmbeddingModelsResponse:
        """Lists the models by name."""
        page_size = convert.list_from_proto(request)
        models, token = await self._catalogue.list(page_size=page_size, page_token=request.page_token)
        return pb.ListEmbeddingModelsResponse(
            embedding_models=[convert.model_to_proto(model) for model in models], next_page_token=token
        )

    async def SetDefaultEmbeddingModel(
        self, request: pb.SetDefaultEmbeddingModelRequest, context: Context
    ) -> pb.SetDefaultEmbeddingModelResponse:
        """Chooses the tenant's model."""
        chosen = await self._catalogue.set_default(convert.name_from_proto(request))
        return pb.SetDefaultEmbeddingModelResponse(embedding_model=convert.model_to_proto(chosen))

    async def ReembedMemories(self, request: pb.ReembedMemoriesRequest, context: Context) -> pb.ReembedMemoriesResponse:
        """Begins to move the tenant's memories to another model."""
        to_model, key = reembedding_convert.reembed_from_proto(request)
        begun = await self._reembeddings.begin(to_model, key)
        return pb.ReembedMemoriesResponse(reembedding=reembedding_convert.reembedding_to_proto(begun))

    async def GetReembedding(self, request: pb.GetReembeddingRequest, context: Context) -> pb.GetReembeddingResponse:
        """Returns how far a move is."""
        found = await self._reembeddings.get(reembedding_convert.reembedding_id_from_proto(request))
        return pb.GetReembeddingResponse(reembedding=reembedding_convert.reembedding_to_proto(found))

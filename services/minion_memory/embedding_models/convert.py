"""Between the contract's embedding models and ours."""

import re

from minion.memory.v1 import embedding_model_pb2
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire

from minion_memory.embedding_models.domain import LARGEST_DIMENSION, ListedModel, NewModel

_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
# The provider, a slash, and the provider's own name of the model, which may hold more of them.
_NAME = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._:@+-]+(/[A-Za-z0-9._:@+-]+)*")
_DISTANCES = (embedding_model_pb2.EMBEDDING_DISTANCE_UNSPECIFIED, embedding_model_pb2.EMBEDDING_DISTANCE_COSINE)


def register_from_proto(request: pb.RegisterEmbeddingModelRequest) -> NewModel:
    """Reads a model to register. Raises InvalidArgument with all faults."""
    violations = Violations()
    model = request.embedding_model
    name = violations.length("embedding_model.name", model.name, minimum=3, maximum=200)
    if 3 <= len(name) <= 200 and not _NAME.fullmatch(name):
        violations.add("embedding_model.name", "must be `provider/model`, of A-Z, a-z, 0-9 and ._:@+-")
    violations.between("embedding_model.dimension", model.dimension, minimum=1, maximum=LARGEST_DIMENSION)
    if model.distance not in _DISTANCES:
        violations.add("embedding_model.distance", "must be COSINE")
    violations.raise_if_any()
    return NewModel(name, model.dimension)


def list_from_proto(request: pb.ListEmbeddingModelsRequest) -> int:
    """Reads the size of a page. Raises InvalidArgument when it is negative."""
    violations = Violations()
    if request.page_size < 0:
        violations.add("page_size", f"must not be negative, is {request.page_size}")
    violations.raise_if_any()
    return min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)


def name_from_proto(request: pb.SetDefaultEmbeddingModelRequest) -> str:
    """Reads which model is meant. Raises InvalidArgument."""
    violations = Violations()
    name = violations.length("name", request.name, minimum=1, maximum=200)
    violations.raise_if_any()
    return name


def model_to_proto(listed: ListedModel) -> embedding_model_pb2.EmbeddingModel:
    """Writes a model."""
    registered = listed.registered
    return embedding_model_pb2.EmbeddingModel(
        name=registered.model.name,
        provider=registered.provider,
        dimension=registered.model.dimension,
        distance=embedding_model_pb2.EMBEDDING_DISTANCE_COSINE,
        state=embedding_model_pb2.EMBEDDING_MODEL_STATE_READY
        if registered.ready
        else embedding_model_pb2.EMBEDDING_MODEL_STATE_INSTALLING,
        is_default=listed.default,
        create_time=wire.to_timestamp(registered.create_time),
    )

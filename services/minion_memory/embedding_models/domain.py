"""What an embedding model is."""

from dataclasses import dataclass
from datetime import datetime

from minion_errors import AlreadyExists, FailedPrecondition, NotFound

LARGEST_DIMENSION = 4_000


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model whose vectors can be stored and searched."""

    model_id: int
    name: str
    dimension: int


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model to register."""

    name: str
    dimension: int


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model as registered; until it is `ready`, its vectors have no place."""

    model: EmbeddingModel
    provider: str
    ready: bool
    create_time: datetime


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A registered model; `default` says that the caller's tenant uses it."""

    registered: RegisteredModel
    default: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """The name of the model that a tenant's memories are embedded with; its `own`, or else the deployment's.

    With a model of its own a tenant has vectors of that alone; else a caller's vectors may be of any model.
    """

    name: str
    own: bool

    def takes(self, name: str) -> bool:
        """Says whether vectors of this model go with the tenant's memories."""
        return not self.own or name == self.name


def usable(name: str, found: RegisteredModel | None) -> EmbeddingModel:
    """Gives a model that can be used.

    Raises:
        NotFound: there is none of this name (`EMBEDDING_MODEL_NOT_FOUND`).
        FailedPrecondition: its index isn't made yet (`EMBEDDING_MODEL_NOT_READY`).
    """
    metadata = {"embedding_model": name}
    if found is None:
        raise NotFound(f"There is no embedding model {name!r}.", reason="EMBEDDING_MODEL_NOT_FOUND", metadata=metadata)
    if not found.ready:
        raise FailedPrecondition(
            f"The index of the embedding model {name!r} isn't made yet.",
            reason="EMBEDDING_MODEL_NOT_READY",
            metadata=metadata,
        )
    return found.model


def check_same(new: NewModel, registered: RegisteredModel) -> None:
    """Raises AlreadyExists (EMBEDDING_MODEL_EXISTS) unless the model is registered as it is to be."""
    if registered.model.dimension != new.dimension:
        raise AlreadyExists(
            f"The embedding model {new.name!r} is registered with {registered.model.dimension} dimensions.",
            reason="EMBEDDING_MODEL_EXISTS",
            metadata={"embedding_model": new.name, "dimension": str(registered.model.dimension)},
        )

"""Which model a tenant's memories are embedded with, and what callers do with models."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from time import monotonic
from typing import TypeVar
from uuid import UUID

from minion_auth import caller, tenant
from minion_auth.bounded import BoundedCache
from minion_errors import Aborted, Unavailable
from minion_postgres import pages

from minion_memory.embedding_models.domain import (
    Chosen,
    EmbeddingModel,
    ListedModel,
    NewModel,
    RegisteredModel,
    check_same,
    usable,
)
from minion_memory.embedding_models.store import EmbeddingModelStore

_T = TypeVar("_T")
_FILTERS = {"list": "embedding_models"}
_REMEMBERED_TENANTS = 10_000
_CHOICE_SECONDS = 5.0
_MOVES = frozenset({"EMBEDDING_MODEL_MOVED", "EMBEDDING_MODEL_MOVING"})
# A tenant that is moved more often than this during one call is nobody's.
_MOST_MOVES = 2
# Writers wait for the end of a move, which takes some hundredths of a second; one that dies lets go after five seconds.
_LOOK_SECONDS, _LONGEST_WAIT_SECONDS = 0.05, 8.0


class EmbeddingModels:
    """The deployment's models, and each tenant's own.

    Both are kept in memory. A ready model never changes. A tenant's choice does, so the database checks it where
    vectors are stored or compared (memory.require_model), and what is kept here may be old: see `settled`.
    """

    def __init__(self, store: EmbeddingModelStore, *, default_model: str) -> None:
        self._store = store
        self._default_model = default_model
        self._known: dict[str, RegisteredModel] = {}
        self._choices: BoundedCache[UUID, tuple[int | None, float]] = BoundedCache(_REMEMBERED_TENANTS)

    @property
    def default_model(self) -> str:
        """The name of the deployment's model, for tenants that chose none."""
        return self._default_model

    async def named(self, name: str) -> EmbeddingModel:
        """Gives the model of this name.

        Raises:
            NotFound: there is none (`EMBEDDING_MODEL_NOT_FOUND`).
            FailedPrecondition: its index isn't made yet (`EMBEDDING_MODEL_NOT_READY`).
        """
        known = self._known.get(name)
        if known is None or not known.ready:
            await self._read()
            known = self._known.get(name)
        return usable(name, known)

    async def of(self, tenant_id: UUID) -> Chosen:
        """Gives the model that a tenant's memories are embedded with, as it was some seconds ago at most."""
        choice = await self._choice(tenant_id)
        if choice is None:
            return Chosen(self._default_model, own=False)
        return Chosen((await self._numbered(choice)).model.name, own=True)

    async def name_of(self, tenant_id: UUID) -> str:
        """Gives the name of the tenant's model, as it is now."""
        self.forget(tenant_id)
        return (await self.of(tenant_id)).name

    async def settled(self, tenant_id: UUID, work: Callable[[Chosen], Awaitable[_T]]) -> _T:
        """Does what needs the tenant's model; again, when the memories were moved to another one meanwhile.

        Writers wait while a move ends. Raises Unavailable (EMBEDDING_UNAVAILABLE) when that takes too long.
        """
        until = monotonic() + _LONGEST_WAIT_SECONDS
        moves = 0
        while True:
            try:
                return await work(await self.of(tenant_id))
            except Aborted as fault:
                if fault.reason == "EMBEDDING_MODEL_MOVED" and moves < _MOST_MOVES:
                    moves += 1
                elif fault.reason == "EMBEDDING_MODEL_MOVING" and monotonic() < until:
                    await asyncio.sleep(_LOOK_SECONDS)
                elif fault.reason in _MOVES:
                    raise Unavailable(
                        fault.message,
                        reason="EMBEDDING_UNAVAILABLE",
                        metadata={"cause": fault.reason},
                        retry_after=timedelta(seconds=1),
                    ) from fault
                else:
                    raise
                self.forget(tenant_id)

    def forget(self, tenant_id: UUID) -> None:
        """Reads the tenant's choice anew next time."""
        self._choices.drop(tenant_id)

    async def _choice(self, tenant_id: UUID) -> int | None:
        kept = self._choices.get(tenant_id)
        if kept is not None and kept[1] > monotonic():
            return kept[0]
        choice = await self._store.choice(tenant_id)
        self._choices.put(tenant_id, (choice, monotonic() + _CHOICE_SECONDS))
        return choice

    async def _numbered(self, model_id: int) -> RegisteredModel:
        for _ in range(2):
            for known in self._known.values():
                if known.model.model_id == model_id:
                    return known
            await self._read()
        raise RuntimeError(f"a tenant's model {model_id} isn't registered")

    async def _read(self) -> None:
        self._known = {found.model.name: found for found in await self._store.all()}


class ModelCatalogue:
    """What operators and tenants do with models."""

    def __init__(self, store: EmbeddingModelStore, models: EmbeddingModels) -> None:
        self._store = store
        self._models = models

    async def register(self, new: NewModel) -> ListedModel:
        """Registers a model, or gives the one that is registered so.

        Raises AlreadyExists (EMBEDDING_MODEL_EXISTS) when it is registered with another dimension.
        """
        registered = await self._store.register(new)
        check_same(new, registered)
        return ListedModel(registered, registered.model.name == await self._default())

    async def list(self, *, page_size: int, page_token: str) -> tuple[list[ListedModel], str]:
        """Lists the models by name, with the token of the next page (empty on the last).

        Raises InvalidArgument: the token is not of this list (`PAGE_TOKEN_INVALID`).
        """
        after = str(pages.decode(page_token, _FILTERS, (str,))[0]) if page_token else ""
        found = await self._store.page(after, page_size + 1)
        default = await self._default()
        token = pages.encode((found[page_size - 1].model.name,), _FILTERS) if len(found) > page_size else ""
        return [ListedModel(one, one.model.name == default) for one in found[:page_size]], token

    async def set_default(self, name: str) -> ListedModel:
        """Makes a model the one of the caller's tenant.

        Raises:
            NotFound: there is no such model (`EMBEDDING_MODEL_NOT_FOUND`).
            FailedPrecondition: it can't be used yet (`EMBEDDING_MODEL_NOT_READY`), or memories lack its vector
                (`REEMBEDDING_NEEDED`) or are being moved (`REEMBEDDING_RUNNING`).
        """
        tenant_id = tenant()
        model = await self._models.named(name)
        await self._store.choose(tenant_id, model)
        self._models.forget(tenant_id)
        found = next(one for one in await self._store.all() if one.model == model)
        return ListedModel(found, default=True)

    async def _default(self) -> str:
        # An operator may have no tenant in mind: then the deployment's model is meant.
        tenant_id = caller().tenant_id
        return self._models.default_model if tenant_id is None else await self._models.name_of(tenant_id)

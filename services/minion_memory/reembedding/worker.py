"""Makes vectors beside the calls: moves tenants to other models, and embeds what could not be embedded when stored."""

import asyncio
import random
from array import array
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import structlog
from minion_auth import CallerKind, Identity, acting_as
from minion_errors import Aborted, InvalidArgument, MinionError
from minion_grpc import deadline

from minion_memory.embedding_models.domain import Chosen, EmbeddingModel
from minion_memory.embedding_models.service import EmbeddingModels
from minion_memory.memories.peer import Gateway
from minion_memory.reembedding.domain import (
    Lease,
    Move,
    PassEnd,
    Text,
    fault_text,
    is_for_good,
    pause_after,
)
from minion_memory.reembedding.store import ReembeddingStore, UnembeddedStore

_log = structlog.get_logger()
_TEXTS_A_CALL = 64
_BYTES_A_CALL = 256 * 1024
_CALL_SECONDS = 60.0
_AT_ONCE = timedelta(0)
# How long writers are kept out at most, for the last memories of a move; the usual embedding takes a hundredth.
_CLOSED = timedelta(seconds=5)
_PICKED_A_LOOK = 256
_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 1.0, 30.0
_SELF = "service:memory"


class Embedding:
    """Embeds through the gateway, as this service, for a tenant."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(
        self, tenant_id: UUID, principal: str, model: EmbeddingModel, texts: Sequence[Text]
    ) -> "list[array[float]]":
        """Makes a vector of each text; raises what `Gateway.embed` does."""
        identity = Identity(
            kind=CallerKind.SERVICE,
            tenant_id=tenant_id,
            principal=_SELF,
            on_behalf_of=principal,
            service="memory",
        )
        with acting_as(identity), deadline.within(_CALL_SECONDS):
            return await self._gateway.embed(
                [text.content for text in texts], model=model.name, dimension=model.dimension
            )


class Reembedder:
    """Moves tenants' memories to other models, one move at a time; any replica goes on where another one ended.

    In each pass the memories that lack the new vector get it, batch by batch. A pass that leaves none ends the move.
    Where writers add some again and again, they are kept out for the moment that the last ones take.
    """

    def __init__(
        self, store: ReembeddingStore, models: EmbeddingModels, embed: Embedding, *, poll_seconds: float
    ) -> None:
        self._store = store
        self._models = models
        self._embed = embed
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Works, for ever."""
        while True:
            await _next_look(self._poll_seconds)
            try:
                while (lease := await self._store.lease()) is not None:
                    await self.work(lease)
            except MinionError as fault:
                _log.warning("a re-embedding can't go on now", reason=fault.reason, error=fault.message)

    async def work(self, lease: Lease) -> None:
        """Goes on with a move until it ends, is lost, or something is in the way."""
        try:
            await self._passes(lease)
        except asyncio.CancelledError:
            # Another replica may go on at once; where that can't be said, it waits for the lease to lapse.
            with suppress(MinionError):
                await self._store.defer(lease, _AT_ONCE, "")
            raise
        except Aborted:
            # A writer held the lock for long: the next lease looks at it afresh.
            await self._store.defer(lease, pause_after(0), "")

    async def _passes(self, lease: Lease) -> None:
        move = await self._store.read(lease)
        picked, passes = 0, 0
        while move is not None:
            texts = await self._store.pick(lease, _TEXTS_A_CALL, _BYTES_A_CALL)
            if texts:
                picked += len(texts)
                move = await self._carry(lease, move, texts)
                continue
            end = await self._store.end_pass(lease)
            _log.info("a re-embedding's pass ended", reembedding_id=str(lease.reembedding_id), end=end.value)
            if end is not PassEnd.AGAIN:
                self._models.forget(lease.tenant_id)
                return
            passes += 1
            if passes > 1 and picked <= _TEXTS_A_CALL and not await self._store.close(lease, _CLOSED):
                return
            picked = 0

    async def _carry(self, lease: Lease, move: Move, texts: Sequence[Text]) -> Move | None:
        """Embeds and places a batch; None when the move is not to be gone on with here."""
        try:
            target = await self._models.named(move.target)
            vectors = await self._embed(lease.tenant_id, move.principal, target, texts)
        except MinionError as fault:
            if isinstance(fault, InvalidArgument) and len(texts) > 1:
                # One of them is at fault: alone it says so.
                for text in texts:
                    if await self._carry(lease, move, [text]) is None:
                        return None
                return move
            error = fault_text(fault, texts)
            if is_for_good(fault, move):
                _log.error("a re-embedding failed", reembedding_id=str(lease.reembedding_id), error=error)
                await self._store.fail(lease, error)
            else:
                _log.warning("a re-embedding waits", reembedding_id=str(lease.reembedding_id), error=error)
                await self._store.defer(lease, pause_after(move.failure_count), error)
            return None
        return move if await self._store.place(lease, texts, vectors) else None


class LateEmbedder:
    """Embeds memories that were stored while no model answered; any replica may.

    While the gateway doesn't answer, a replica rests for longer and longer and gives back what it picked. A text that
    the model doesn't take is tried ever more rarely, and holds up nothing else.
    """

    def __init__(
        self, store: UnembeddedStore, models: EmbeddingModels, embed: Embedding, *, poll_seconds: float
    ) -> None:
        self._store = store
        self._models = models
        self._embed = embed
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Embeds, for ever."""
        rest = _FIRST_REST_SECONDS
        while True:
            await _next_look(self._poll_seconds)
            try:
                served = True
                while served:
                    picked, served = await self.embed()
                    if picked < _PICKED_A_LOOK:
                        break
            except MinionError as fault:
                _log.warning("memories wait for their vectors", reason=fault.reason, error=fault.message)
                served = False
            if served:
                rest = _FIRST_REST_SECONDS
            else:
                await _next_look(rest)
                rest = min(rest * 2, _LONGEST_REST_SECONDS)

    async def embed(self) -> tuple[int, bool]:
        """Embeds what is due, of every tenant; gives how many were picked, and whether models answered."""
        picked = await self._store.pick(_PICKED_A_LOOK)
        served = True
        try:
            for tenant_id, ids in picked.items():
                for start in range(0, len(ids), _TEXTS_A_CALL):
                    # One tenant's model may be away while another's answers.
                    served = await self._serve(tenant_id, ids[start : start + _TEXTS_A_CALL]) and served
        except asyncio.CancelledError:
            # Another replica may go on at once; what has its vector by now is not in the list any more.
            with suppress(MinionError):
                for tenant_id, ids in picked.items():
                    await self._store.give_back(tenant_id, ids, _AT_ONCE)
            raise
        return sum(len(ids) for ids in picked.values()), served

    async def _serve(self, tenant_id: UUID, ids: Sequence[UUID]) -> bool:
        """Embeds a tenant's memories; false when it couldn't be done now."""
        left = set(ids)
        try:
            while left and (texts := await self._store.read(tenant_id, sorted(left), _BYTES_A_CALL)):
                await self._give(tenant_id, texts)
                left -= {text.memory_id for text in texts}
        except MinionError as fault:
            _log.warning("memories wait for their vectors", count=len(left), reason=fault.reason, error=fault.message)
            await self._store.give_back(tenant_id, sorted(left), _AT_ONCE)
            return False
        return True

    async def _give(self, tenant_id: UUID, texts: Sequence[Text]) -> None:
        async def give(chosen: Chosen) -> None:
            model = await self._models.named(chosen.name)
            vectors = await self._embed(tenant_id, _SELF, model, texts)
            await self._store.place(tenant_id, model, texts, vectors)

        try:
            await self._models.settled(tenant_id, give)
        except InvalidArgument as fault:
            if len(texts) == 1:
                _log.warning("a memory can't be embedded", memory_id=str(texts[0].memory_id), reason=fault.reason)
                return
            # One of them is at fault; the others shall not wait for it.
            for text in texts:
                await self._give(tenant_id, [text])


async def _next_look(seconds: float) -> None:
    # Replicas in step would leave all the work to the one that is a moment ahead.
    await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

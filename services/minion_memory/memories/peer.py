"""The gateway, which makes vectors of texts."""

from array import array
from collections.abc import Sequence
from datetime import timedelta

import grpc
from minion.gateway.v1 import inference_service_pb2 as pb
from minion.gateway.v1 import inference_service_pb2_grpc
from minion_errors import DeadlineExceeded, InvalidArgument, MinionError, Unavailable
from minion_grpc.deadline import remaining, within
from minion_grpc.peer_errors import peer_call

# What `connect` may try again for this channel's user.
RETRYABLE = ("/minion.gateway.v1.InferenceService/Embed",)

_RETRY_AFTER = timedelta(seconds=1)
# The share of what is left to the call in hand: the rest is for what comes after.
_SHARE = 0.75
# What the gateway says of the text itself; all else is no fault of the caller's.
_ABOUT_THE_TEXT = frozenset({"CONTEXT_TOO_LONG", "PROVIDER_REQUEST_REFUSED"})


class Gateway:
    """Calls the gateway's InferenceService as this service, for the caller in hand."""

    def __init__(self, channel: grpc.aio.Channel, *, seconds: float = 10.0) -> None:
        self._stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        self._seconds = seconds

    async def embed(self, texts: Sequence[str], *, model: str, dimension: int) -> "list[array[float]]":
        """Makes a vector of each text, by the model that is named.

        Raises:
            Unavailable: the gateway or its provider can't do it now, or not in time (`EMBEDDING_UNAVAILABLE`).
            InvalidArgument: the provider can't take such a text.
            DeadlineExceeded: the call in hand ran out of time.
        """
        left = remaining()
        try:
            with within(self._seconds if left is None else min(self._seconds, left * _SHARE)), peer_call("gateway"):
                answer = await self._stub.Embed(pb.EmbedRequest(model=model, texts=texts))
        except DeadlineExceeded as error:
            if left is not None and (remaining() or 0) <= 0:
                raise
            raise _unavailable("EMBEDDING_TIMEOUT", None) from error
        except MinionError as error:
            if isinstance(error, InvalidArgument) and error.reason in _ABOUT_THE_TEXT:
                raise
            cause = error.metadata.get("cause", error.reason)
            raise _unavailable(cause, getattr(error, "retry_after", None)) from error
        vectors = [array("f", embedding.values[:]) for embedding in answer.embeddings]
        if len(vectors) != len(texts) or any(len(vector) != dimension for vector in vectors):
            raise _unavailable("EMBEDDING_MISSHAPEN", None)
        return vectors


def _unavailable(cause: str, retry_after: timedelta | None) -> Unavailable:
    return Unavailable(
        "The text can't be embedded now.",
        reason="EMBEDDING_UNAVAILABLE",
        metadata={"cause": cause},
        retry_after=retry_after or _RETRY_AFTER,
    )

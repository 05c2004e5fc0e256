"""The RPCs on blobs."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from minion.session.v1 import blob_service_pb2 as pb
from minion.session.v1.blob_service_pb2_grpc import BlobServiceServicer

from minion_session.blobs import convert
from minion_session.blobs.service import Blobs

Context = grpc.aio.ServicerContext[Any, Any]


class BlobServicer(BlobServiceServicer):
    """Serves minion.session.v1.BlobService."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def PutBlob(self, request_iterator: AsyncIterator[pb.PutBlobRequest], context: Context) -> pb.PutBlobResponse:
        """Stores a blob from a stream."""
        new = await convert.header_from_proto(request_iterator)
        blob = await self._blobs.put(new, convert.chunks_from_proto(request_iterator))
        return pb.PutBlobResponse(blob=convert.to_proto(blob))

    async def GetBlob(self, request: pb.GetBlobRequest, context: Context) -> AsyncIterator[pb.GetBlobResponse]:
        """Streams a blob, or a range of it."""
        blob, chunks = await self._blobs.get(convert.get_from_proto(request))
        yield pb.GetBlobResponse(blob=convert.to_proto(blob))
        async for chunk in chunks:
            yield pb.GetBlobResponse(chunk=chunk)

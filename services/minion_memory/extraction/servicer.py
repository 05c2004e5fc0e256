"""The RPCs on extraction."""

from typing import Any

import grpc
from minion.memory.v1 import memory_service_pb2 as pb
from minion_grpc import wire

from minion_memory.extraction import convert
from minion_memory.extraction.service import Extraction

Context = grpc.aio.ServicerContext[Any, Any]


class ExtractionRpcs:
    """The part of minion.memory.v1.MemoryService that is about drawing memories from sessions."""

    _extraction: Extraction

    async def ExtractMemories(self, request: pb.ExtractMemoriesRequest, context: Context) -> pb.ExtractMemoriesResponse:
        """Draws memories from a session, and waits for it."""
        stretch, key = convert.extract_from_proto(request)
        extracted = await self._extraction.extract(stretch, key)
        size = wire.json_bytes(result.memory.metadata for result in extracted.results)
        return await wire.off_loop(convert.extracted_to_proto, extracted, size)

    async def ListExtractionJobs(
        self, request: pb.ListExtractionJobsRequest, context: Context
    ) -> pb.ListExtractionJobsResponse:
        """Lists extraction jobs, newest first."""
        filters, page_size = convert.list_from_proto(request)
        page, token = await self._extraction.list(filters, page_size=page_size, page_token=request.page_token)
        return pb.ListExtractionJobsResponse(
            jobs=[convert.job_to_proto(job) for job in page.jobs], next_page_token=token
        )

    async def RetryExtractionJob(
        self, request: pb.RetryExtractionJobRequest, context: Context
    ) -> pb.RetryExtractionJobResponse:
        """Runs a job that ended again, in the background."""
        job_id, key = convert.retry_from_proto(request)
        return pb.RetryExtractionJobResponse(job=convert.job_to_proto(await self._extraction.retry(job_id, key)))
